{{/* Values in, the collector's configuration file out: what `config` says, and what the chart knows. */}}

{{/* Each secret: the section and the key of docs/settings.md that names its file. */}}
{{- define "introspan.secretKeys" -}}
apiToken: [http_token_file]
producerToken: [accept, bearer_token_file]
canaryKey: [canary, key_file]
canaryApiKey: [canary, api_key_file]
alertmanagerToken: [notify, alertmanager_token_file]
alertmanagerCa: [notify, alertmanager_ca_file]
webhookToken: [notify, webhook_token_file]
webhookSecret: [notify, webhook_secret_file]
webhookCa: [notify, webhook_ca_file]
{{- end -}}

{{- define "introspan.secretFolder" -}}
/etc/introspan/secrets
{{- end -}}

{{- define "introspan.toml" -}}
{{- $config := deepCopy .Values.config -}}
{{- $accept := default dict $config.accept -}}
{{- $_ := set $accept "max_resident_bytes" (div (mul (int64 .Values.memoryMiB) 1048576 4) 5) -}}
{{- if .Values.tls.secretName -}}
{{- $_ := set $accept "tls_certificate_file" "/etc/introspan/tls/tls.crt" -}}
{{- $_ := set $accept "tls_key_file" "/etc/introspan/tls/tls.key" -}}
{{- if .Values.tls.clientCertificates -}}
{{- $_ := set $accept "tls_client_ca_file" "/etc/introspan/tls/ca.crt" -}}
{{- end -}}
{{- else if .Values.tls.clientCertificates -}}
{{- fail "tls.clientCertificates needs tls.secretName: a Secret with tls.crt, tls.key and ca.crt" -}}
{{- end -}}
{{- $_ := set $config "accept" $accept -}}
{{- range $name, $path := include "introspan.secretKeys" . | fromYaml -}}
{{- if (get $.Values.secrets $name).name -}}
{{- $file := printf "%s/%s" (include "introspan.secretFolder" $) $name -}}
{{- if eq (len $path) 1 -}}
{{- $_ := set $config (first $path) $file -}}
{{- else -}}
{{- $section := default dict (get $config (first $path)) -}}
{{- $_ := set $section (last $path) $file -}}
{{- $_ := set $config (first $path) $section -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toToml $config }}
{{- end -}}

{{/* A volume that is too small fills up, and a full volume takes no batches. */}}
{{- define "introspan.checkSize" -}}
{{- $log := int64 (dig "log" "max_bytes" 4294967296 .Values.config) -}}
{{- $archive := int64 (dig "archive" "max_bytes" 17179869184 .Values.config) -}}
{{- $volume := mul (int64 .Values.persistence.sizeGiB) 1073741824 -}}
{{- if gt (mul (add $log $archive) 6) (mul $volume 5) -}}
{{- fail (printf "persistence.sizeGiB must hold config.log.max_bytes + config.archive.max_bytes with a fifth to spare: %d bytes and a fifth, got %d GiB" (add $log $archive) (int64 .Values.persistence.sizeGiB)) -}}
{{- end -}}
{{- end -}}

{{/* The secrets in use, as sources of one volume; each key becomes a file of the secret's name. */}}
{{- define "introspan.secretSources" -}}
{{- range $name, $secret := .Values.secrets }}
{{- if $secret.name }}
- secret:
    name: {{ $secret.name }}
    items:
      - {key: {{ $secret.key | quote }}, path: {{ $name }}}
{{- end }}
{{- end }}
{{- end -}}
