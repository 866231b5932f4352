#!/bin/bash
# Makes sure that the named Debian packages' files are there: debian.sh VENV PACKAGE...
# Installs what is missing as root; otherwise ends with the one line that says what to install.
set -euo pipefail
venv=$1
shift

present() {
  case $1 in
    libnuma1) ldconfig -p | grep -q 'libnuma\.so\.1' ;;
    python3-dev) "$venv/bin/python" -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_paths()["include"], "Python.h").stat()' 2>/dev/null ;;
    python3-venv) /usr/bin/python3 -c 'import ensurepip' 2>/dev/null ;;
    prometheus) command -v prometheus >/dev/null && command -v promtool >/dev/null ;;
    prometheus-alertmanager) command -v "$1" >/dev/null && [ -e /usr/share/prometheus/alertmanager/default.tmpl ] ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing=()
for package in "$@"; do present "$package" || missing+=("$package"); done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "missing Debian packages: as root, apt-get install ${missing[*]}" >&2
  exit 1
fi

apt-get update -qq
for package in "${missing[@]}"; do
  echo "installing the Debian package $package"
  if [[ $package = prometheus* ]]; then
    # Only its programs, into .venv: installing the package would start a service on its usual port.
    folder=$(mktemp -d)
    # apt downloads as an unprivileged user, which has to be able to write here.
    chmod 777 "$folder"
    (cd "$folder" && apt-get download -qq "$package" && dpkg-deb -x "$package"_*.deb files)
    install "$folder"/files/usr/bin/* "$venv/bin/"
    if [ "$package" = prometheus-alertmanager ]; then
      # Debian's build reads its templates from this very path, whatever its configuration says.
      install -D -t /usr/share/prometheus/alertmanager "$folder"/files/usr/share/prometheus/alertmanager/*.tmpl
    fi
    rm -rf "$folder"
  else
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
  fi
done
