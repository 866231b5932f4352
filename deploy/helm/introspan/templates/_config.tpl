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
{{- $notify := default dict $config.notify -}}
{{- $_ := set $notify "runbook_url" .Values.runbookUrl -}}
{{- $_ := set $notify "grafana_url" .Values.grafanaUrl -}}
{{- $_ := set $config "notify" $notify -}}
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
{{- $archive := .Values.config.archive -}}
{{- $kept := add (int64 .Values.config.log.max_bytes) (int64 $archive.max_bytes) (int64 $archive.rollup_max_bytes) -}}
{{- $gib := 1073741824 -}}
{{- $needed := div (add (div (mul $kept 6) 5) (sub $gib 1)) $gib -}}
{{- if lt (int64 .Values.persistence.sizeGiB) $needed -}}
{{- fail (printf "persistence.sizeGiB must be >= %d, got %d: it holds config.log.max_bytes, config.archive.max_bytes and config.archive.rollup_max_bytes with a fifth to spare" $needed (int64 .Values.persistence.sizeGiB)) -}}
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
