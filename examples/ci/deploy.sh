#!/usr/bin/env bash
# Publishes an exported model as a new version, lets an InferenceModel serve it, and waits until every
# replica does. If that fails, the version before is served again and the script ends with an error.
#
#   deploy.sh EXPORT_DIR RESOURCE.yaml [OPTION OF model_publish...]
#
# It needs kubectl with its plugin, and model_publish: docs/install.md, Command-line tools.
# TIMEOUT (10m) is the most that each wait takes.
set -euo pipefail

usage="usage: deploy.sh EXPORT_DIR RESOURCE.yaml [OPTION OF model_publish...]"
export_dir=${1:?$usage} resource=${2:?$usage}
shift 2
timeout=${TIMEOUT:-10m}

field() { kubectl create --dry-run=client -f "$resource" -o "jsonpath={$1}"; }
name=$(field .metadata.name)
uri=$(field .spec.model.storageUri)

pin() { kubectl patch "inferencemodel/$name" --type=merge --patch "{\"spec\": {\"model\": {\"version\": $1}}}"; }
served() { kubectl inferencemodel wait "$name" --version="$1" --timeout="$timeout"; }

before=$(kubectl get "inferencemodel/$name" --ignore-not-found -o 'jsonpath={.status.model.activeVersion}')

version=$(model_publish "$export_dir" "$uri" "$@")
echo "published version $version below $uri"

kubectl apply -f "$resource"
# By number, so that nothing that is uploaded meanwhile gets in between.
pin "$version"
if served "$version"; then
  exit 0
fi

kubectl inferencemodel why "$name" >&2
if [[ -n $before ]]; then
  echo "going back to version $before" >&2
  pin "$before"
  served "$before"
fi
exit 1
