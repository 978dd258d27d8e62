#!/bin/sh
# A rehearsal's keys, certificates and phantoms, in the volumes that compose.yml mounts; nothing where they are already.
set -eu
[ ! -e /study/prepared ] || exit 0
if [ -e /study/study.yaml ]; then
    echo "the volumes are half prepared: docker compose -f docker/compose.yml down --volumes" >&2
    exit 1
fi
fedurwkv coordinator init /study --name coordinator
fedurwkv partition --set data.sites=3 --out /tmp/sites
number=0
for data in /tmp/sites/site*/; do
    number=$((number + 1))
    name=$(basename "$data")
    site=/site$number
    cp -r "$data." "/data$number/"
    fedurwkv site init "$site"
    sed -i -e "s|^  name: .*|  name: $name|" -e "s|^  coordinator: .*|  coordinator: coordinator:9092|" \
        -e "s|^data: .*|data: /data|" -e "s|^  unit: .*|  unit: none|" "$site/site.yaml"
    cp /study/ca.crt "$site/ca.crt"
    fedurwkv site keygen "$site"
    fedurwkv coordinator enroll /study "$name" "$site/site.pub"
    mkdir -p "$site/state/trainer" "$site/privacy" "/state$number/trainer"  # where others are mounted
done
chown -R 10001 /study /site? /data? /state? /socket?
touch /study/prepared
