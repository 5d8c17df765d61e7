#!/bin/sh
# Certificates for TLS between the parts of compose.yaml, from an authority of your own, in deploy/tls. Run it again to renew them: the
# authority stays. Gateways, workers and commands read their files at each connect; nats-server takes new ones after a signal HUP.
#
#   sh deploy/tls.sh [folder] [days]
#
# The folder is closed to others on this host (0700). The files of each part lie in a folder of its own, readable for the user in the container.
set -eu
command -v openssl > /dev/null || { echo "openssl is missing: install it, and run this again" >&2; exit 1; }
folder=${1:-"$(dirname "$0")/tls"}
days=${2:-90}
mkdir -p "$folder"
chmod 700 "$folder"

newkey() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "$@" 2> /dev/null; }

if [ ! -e "$folder/ca-key.pem" ]; then
  newkey -x509 -days 3650 -subj "/CN=sluice internal CA" -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -keyout "$folder/ca-key.pem" -out "$folder/ca.pem"
  chmod 600 "$folder/ca-key.pem"
fi

# Part, how it uses its certificate, and the names that others reach it by.
issue() {
  mkdir -p "$folder/$1"
  newkey -subj "/CN=$1" -keyout "$folder/$1/key.new" -out "$folder/request.pem"
  printf 'extendedKeyUsage=%s\nsubjectAltName=%s\n' "$2" "$3" > "$folder/extensions"
  openssl x509 -req -in "$folder/request.pem" -CA "$folder/ca.pem" -CAkey "$folder/ca-key.pem" -CAcreateserial \
    -days "$days" -extfile "$folder/extensions" -out "$folder/$1/cert.new" 2> /dev/null
  cp "$folder/ca.pem" "$folder/$1/ca.pem"
  chmod 755 "$folder/$1"
  chmod 644 "$folder/$1"/*
  mv "$folder/$1/key.new" "$folder/$1/key.pem"
  mv "$folder/$1/cert.new" "$folder/$1/cert.pem"
  rm "$folder/request.pem" "$folder/extensions"
}

issue nats serverAuth "DNS:nats,DNS:localhost,IP:127.0.0.1"
issue clickhouse serverAuth "DNS:clickhouse,DNS:localhost,IP:127.0.0.1"
for part in gateway worker admin query; do issue "$part" clientAuth "DNS:$part"; done
echo "certificates for $days days are in $folder" >&2
