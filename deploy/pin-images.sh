#!/bin/sh
# Prints the images of compose.yaml and deploy/Dockerfile with the digests that their tags have now, for deploy/compose.env. A tag may
# be given to another image later; a digest is the image.
#
#   sh deploy/pin-images.sh >> deploy/compose.env
set -eu
here=$(dirname "$0")

pin() {
  digest=$(docker buildx imagetools inspect "$2" --format '{{.Manifest.Digest}}')
  case $digest in
    sha256:*) printf '%s=%s@%s\n' "$1" "$2" "$digest" ;;
    *) echo "no digest for $2: $digest" >&2; exit 1 ;;
  esac
}

pin NODE_IMAGE "$(sed -n 's/^ARG NODE_IMAGE=//p' "$here/Dockerfile")"
for name in NATS_IMAGE CLICKHOUSE_IMAGE; do
  pin "$name" "$(sed -n "s/.*image: \${$name:-\(.*\)}.*/\1/p" "$here/../compose.yaml")"
done
