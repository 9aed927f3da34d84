#!/usr/bin/env bash
# Publishes an exported model as a new version, lets an InferenceModel serve it, and waits until every
# replica does. If that fails, the version before is served again and the script ends with an error.
#
#   deploy.sh EXPORT_DIR RESOURCE.yaml [OPTION OF model_publish...]
#
# Several runs may meet: the newest version wins, and an older run never touches a pin that isn't its own.
#
# It ends with
#   0  the version answers on every replica
#   1  it doesn't; the version before is pinned again
#  10  another version was pinned meanwhile, by a newer run or by a person; nothing was touched
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
if [[ -n $(field .spec.model.version) ]]; then
  echo "$resource: remove spec.model.version, which is what this script sets" >&2
  exit 1
fi

live() { kubectl get "inferencemodel/$name" --ignore-not-found -o "jsonpath={$1}"; }
pin() { live .spec.model.version; }
served() { kubectl inferencemodel wait "$name" --version="$1" --timeout="$timeout"; }

# Replaces the pin $1 (null for none) by $2; fails when it is another one by now.
replace_pin() {
  kubectl patch "inferencemodel/$name" --type=json --patch "[
    {\"op\": \"test\", \"path\": \"/spec/model/version\", \"value\": $1},
    {\"op\": \"add\", \"path\": \"/spec/model/version\", \"value\": $2}]"
}

superseded=10
end_if_newer() {
  if [[ -n $1 && $1 -gt $version ]]; then
    echo "version $1 is pinned and newer: version $version is left to it" >&2
    exit $superseded
  fi
}
end_if_replaced() {
  local pinned
  pinned=$(pin)
  if [[ $pinned != "$version" ]]; then
    echo "somebody else has set the pin from $version to ${pinned:-none}: it is left as it is" >&2
    exit $superseded
  fi
}

before=$(live .status.model.activeVersion)

version=$(model_publish "$export_dir" "$uri" "$@")
echo "published version $version below $uri"

pinned=$(pin)
end_if_newer "$pinned"
# Two runs may both find that there is no resource yet, and one of them comes second.
kubectl apply -f "$resource" || kubectl apply -f "$resource"

# By number, so that nothing that is uploaded meanwhile gets in between.
while true; do
  pinned=$(pin)
  end_if_newer "$pinned"
  if replace_pin "${pinned:-null}" "$version"; then
    break
  fi
  # Whoever has pinned another version since it was read is looked at anew.
  [[ $(pin) != "$pinned" ]] || exit 1
done

if served "$version"; then
  exit 0
fi

end_if_replaced
kubectl inferencemodel why "$name" >&2
if [[ -n $before ]]; then
  echo "going back to version $before" >&2
  if ! replace_pin "$version" "$before"; then
    end_if_replaced
    exit 1
  fi
  served "$before" || true
fi
exit 1
