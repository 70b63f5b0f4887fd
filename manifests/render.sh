#!/usr/bin/env bash
# Prints the chart as plain objects, for those who install without helm.
set -euo pipefail
cd "$(dirname "$0")/.."
cat <<'HEAD'
# Generated from charts/harbinger by `make manifests`: its defaults, as release `harbinger` in the
# namespace `harbinger-system`. Needs cert-manager. To install:
#
#   kubectl apply --server-side -f manifests/crds
#   sed s/CLUSTER_NAME/prod/ manifests/install.yaml | kubectl apply --server-side -f -
HEAD
cat manifests/namespace.yaml
"${HELM:-helm}" template harbinger charts/harbinger --namespace harbinger-system \
  --set clusterName=CLUSTER_NAME
