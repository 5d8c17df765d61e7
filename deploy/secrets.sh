#!/bin/sh
# Fills deploy/compose.env: a random password for each user of NATS and ClickHouse, and the hashes that ClickHouse's server gets.
# What is set stays, and is checked. The files that compose.yaml mounts become readable for the containers' users.
# Run it again after an update that has new users.
#
#   sh deploy/secrets.sh
set -eu
umask 077
here=$(dirname "$0")
file=${1:-"$here/compose.env"}
[ -e "$file" ] || cp "$here/compose.env.example" "$file"
chmod 600 "$file"

value() { sed -n "s/^$1=//p" "$file" | tail -n 1; }

# Sets a name that has no value yet.
fill() {
  [ -z "$(value "$1")" ] || return 0
  replace "$1" "$2"
}

replace() {
  draft="$file.new"
  grep -v "^$1=" "$file" > "$draft" || true
  printf '%s=%s\n' "$1" "$2" >> "$draft"
  mv "$draft" "$file"
}

# A letter first: nats-server takes a variable that begins with a digit for a number.
secret() { printf 's%s' "$(od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n')"; }

sha256() {
  if command -v sha256sum > /dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1
}

# Compose gives $, quotes, # and spaces in this file a meaning of their own, and the passwords of NATS stand in addresses.
check() {
  case "$(value "$1")" in
    *[!A-Za-z0-9_.~-]*)
      echo "$1 in $file has a character other than letters, digits and _ . ~ -, which compose or an address would read in its own way." \
        "Take another password, or delete the line and run this again." >&2
      exit 1 ;;
  esac
}

check_nats() {
  check "$1"
  case "$(value "$1")" in
    '' | [A-Za-z]*) ;;
    *)
      echo "$1 in $file begins with no letter, and nats-server may take it for a number. Take another password, or delete the line and run this again." >&2
      exit 1 ;;
  esac
}

# Containers read these as other users of the system. A clone under umask 077 would keep them out; no secret is in them.
chmod a+r "$here"/*.conf "$here"/*.xml ||
  { echo "Cannot make the files in $here readable for the containers: run \`chmod a+r $here/*.conf $here/*.xml\` as their owner." >&2; exit 1; }

for user in GATEWAY WORKER ADMIN READER; do check_nats "NATS_${user}_PASSWORD"; done
check CLICKHOUSE_PASSWORD
check CLICKHOUSE_ANALYST_PASSWORD
for user in GATEWAY WORKER ADMIN READER; do fill "NATS_${user}_PASSWORD" "$(secret)"; done
fill CLICKHOUSE_PASSWORD "$(secret)"
fill CLICKHOUSE_ANALYST_PASSWORD "$(secret)"
replace CLICKHOUSE_SLUICE_SHA256 "$(value CLICKHOUSE_PASSWORD | tr -d '\n' | sha256)"
replace CLICKHOUSE_ANALYST_SHA256 "$(value CLICKHOUSE_ANALYST_PASSWORD | tr -d '\n' | sha256)"
echo "$file is complete. It holds secrets: keep it out of version control and backups of the source." >&2
