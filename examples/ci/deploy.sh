#!/usr/bin/env bash
# Publishes an exported model as a new version, lets an InferenceModel serve it, and waits until every
# replica does. If that fails, the version before is served again and the script ends with an error.
#
#   deploy.sh EXPORT_DIR RESOURCE.yaml [OPTION OF model_publish...]
#
# Several runs may meet: the newest version wins, and an older run never touches a pin that isn't its own.
#
# With GATE, a command, it asks the pipeline's own test before the version goes on. Give the resource a first
# step that waits for it: rollout: {steps: [{replicas: 1, pause: {}}]}. Once the version answers on the replicas
# of that step, one of them is made available on this machine, and GATE is run by bash with
#   MODEL_URL      such as http://127.0.0.1:43127/v1/models/imagenet, of the REST API
#   MODEL_GRPC     such as 127.0.0.1:43126
#   MODEL_VERSION  the version's number
# Where it ends with 0, the version is promoted; else it is aborted, and no other replica gets it.
#
# It ends with
#   0  the version answers on every replica
#   1  it doesn't; the version before is pinned again
#  10  another version was pinned meanwhile, by a newer run or by a person; nothing was touched
#
# It needs kubectl with its plugin, and model_publish: docs/install.md, Command-line tools.
# TIMEOUT (10m) is the most that each wait takes; GATE itself sees to its own.
set -euo pipefail

usage="usage: deploy.sh EXPORT_DIR RESOURCE.yaml [OPTION OF model_publish...]"
export_dir=${1:?$usage} resource=${2:?$usage}
shift 2
timeout=${TIMEOUT:-10m} gate=${GATE:-}

field() { kubectl create --dry-run=client -f "$resource" -o "jsonpath={$1}"; }
name=$(field .metadata.name)
uri=$(field .spec.model.storageUri)
model=$(field .spec.model.name)
model=${model:-$name}
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

# A ready replica that is told to serve the version. Others are told the one before.
replica() {
  local columns='{.metadata.name} {.metadata.annotations.inferencemodel\.dev/target-version}'
  columns+=' {.status.conditions[?(@.type=="Ready")].status}{"\n"}'
  kubectl get pods --selector="$(live .status.selector)" -o "jsonpath={range .items[*]}$columns{end}" |
    awk -v version="$version" '$2 == version && $3 == "True" { print $1 }' | head -n 1
}

# Runs the gate against that replica: through the API server, so it works wherever kubectl does.
passes_gate() {
  local pod line rest="" grpc="" forward passed=0
  pod=$(replica)
  if [[ -z $pod ]]; then
    echo "no ready replica has version $version" >&2
    return 1
  fi
  exec 3< <(exec kubectl port-forward "pod/$pod" :8500 :8501 2>&1)
  forward=$!
  while [[ -z $rest || -z $grpc ]] && read -r -t 30 -u 3 line; do
    case $line in
      "Forwarding from 127.0.0.1:"*" -> 8500") grpc=${line#Forwarding from } ;;
      "Forwarding from 127.0.0.1:"*" -> 8501") rest=${line#Forwarding from } ;;
      "Forwarding from "*) ;;
      *) echo "$line" >&2 ;;
    esac
  done
  grep -v '^Handling connection' <&3 >&2 &
  if [[ -n $rest && -n $grpc ]]; then
    MODEL_URL="http://${rest% -> *}/v1/models/$model" MODEL_GRPC=${grpc% -> *} MODEL_VERSION=$version \
      bash -c "$gate" || passed=$?
  else
    echo "pod $pod can't be reached through the API server" >&2
    passed=1
  fi
  kill "$forward" 2>/dev/null || true
  exec 3<&-
  return "$passed"
}

# Lets the version go on from its first step, or ends its rollout; fails where it is not to go on.
decide() {
  [[ -n $gate ]] || return 0
  kubectl inferencemodel wait "$name" --version="$version" --for=step=1 --timeout="$timeout" || return 1
  end_if_replaced
  if passes_gate; then
    # Where no step waits for it, the version has gone on already.
    kubectl inferencemodel promote "$name" --version="$version" || true
  else
    echo "the gate refused version $version" >&2
    # It may have been taken back by itself meanwhile, or be everywhere.
    kubectl inferencemodel abort "$name" --version="$version" || true
    return 1
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

if decide && served "$version"; then
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
