#!/usr/bin/env bash
# Builds the real control plane and its companions, and the EC2 emulator's environment, once per
# version, into a cache. Prints the folder of the binaries as its last line.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
cache="${HARBINGER_CACHE:-$HOME/.cache/harbinger}"
mkdir -p "$cache"

kubernetes=v1.37.2
helm=v4.3.1

# A folder named by what it is made from: an unchanged recipe is found again at once.
go_tools() {
  local key dir part
  key="$( (cat "$here/go.mod" "$here/go.sum" "$here/certmanager/main.go" "$0"; go env GOVERSION GOARCH) | sha256sum | cut -c1-16)"
  dir="$cache/tools/$key"
  if [ ! -e "$dir/.complete" ]; then
    part="$dir.part.$$"
    rm -rf "$part" && mkdir -p "$part/bin"
    export CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off GOFLAGS="-mod=readonly -buildvcs=false"
    local stamp="" package minor="${kubernetes#v1.}"
    # Without a version the API server calls itself v0.0.0 and helm refuses charts.
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
      stamp="$stamp -X $package.gitVersion=$kubernetes -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*} -X $package.gitTreeState=clean"
    done
    stamp="$stamp -X helm.sh/helm/v4/internal/version.version=$helm"
    cd "$here"
    for package in k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-scheduler \
      k8s.io/kubernetes/cmd/kube-controller-manager k8s.io/kubernetes/cmd/kubectl \
      sigs.k8s.io/kwok/cmd/kwok sigs.k8s.io/metrics-server/cmd/metrics-server helm.sh/helm/v4/cmd/helm \
      github.com/yannh/kubeconform/cmd/kubeconform ./certmanager; do
      echo "building ${package##*/}" >&2
      go build -trimpath -ldflags "-s -w $stamp" -o "$part/bin/" "$package"
    done
    echo "building etcd" >&2
    go build -trimpath -ldflags "-s -w" -o "$part/bin/etcd" go.etcd.io/etcd/server/v3
    cp "$(go list -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)"/deploy/crds/*.yaml "$part/" 2>/dev/null || true
    mkdir -p "$part/cert-manager-crds" && mv "$part"/*.yaml "$part/cert-manager-crds/"
    chmod -R u+w "$part"
    touch "$part/.complete"
    rm -rf "$dir" && mv "$part" "$dir"
  fi
  ln -sfn "$dir" "$cache/tools/current"
  echo "$dir"
}

# moto in a virtual environment of hash-pinned packages.
moto() {
  local key dir
  key="$( (cat "$here/requirements.txt"; python3 --version) | sha256sum | cut -c1-16)"
  dir="$cache/moto/$key"
  if [ ! -e "$dir/.complete" ]; then
    rm -rf "$dir" && mkdir -p "$cache/moto"
    python3 -m venv "$dir"
    "$dir/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$here/requirements.txt" >&2
    touch "$dir/.complete"
  fi
  ln -sfn "$dir" "$cache/moto/current"
}

moto
go_tools
