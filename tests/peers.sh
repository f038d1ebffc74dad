#!/bin/sh
# Installs what tests and benchmarks start beside us, where it may; names on stdout what is missing.
# A PACS (orthanc), DICOM tools (dcmtk, gdcm), a validator (dicom3tools); `ip` puts each site on a
# machine of its own, squid is a proxy, nginx and haproxy end TLS, gcc makes the shim that keeps
# the PACS on loopback, openssl and ssh-keygen check keys and certificates. npm brings the code by
# which viewers read a report, as its lock says.
set -u
PATH="$PATH:/usr/sbin:/sbin"
here=${0%/*}
viewer="${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/wardround-tests/viewer"

# Whether the modules are there that the lock names.
has_viewer() { cmp -s "$here/client/results/viewer/package-lock.json" "$viewer/installed" 2> /dev/null; }

missing() {
  { command -v ip && command -v ss; } > /dev/null || echo iproute2
  command -v Orthanc > /dev/null || echo orthanc
  [ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || echo orthanc-dicomweb
  { command -v storescu && command -v dcmcjpls; } > /dev/null || echo dcmtk
  command -v dciodvfy > /dev/null || echo dicom3tools
  command -v gdcmconv > /dev/null || echo libgdcm-tools
  command -v gcc > /dev/null || echo gcc
  command -v nginx > /dev/null || echo nginx-light
  [ -e /usr/lib/squid/basic_ncsa_auth ] || echo squid
  command -v krb5kdc > /dev/null || echo krb5-kdc
  command -v kadmin.local > /dev/null || echo krb5-admin-server
  command -v haproxy > /dev/null || echo haproxy
  command -v openssl > /dev/null || echo openssl
  command -v ssh-keygen > /dev/null || echo openssh-client
  [ -e /usr/include/stdlib.h ] || echo libc6-dev
  command -v node > /dev/null || echo nodejs
  { command -v dpkg && command -v dpkg-deb; } > /dev/null || echo dpkg
  has_viewer || command -v npm > /dev/null || echo npm
}

wanted=$(missing)
if [ -n "$wanted" ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  echo "Installing for the tests: $(echo $wanted)." >&2
  # Debian starts a service that it installs, unless this says no.
  guard=/usr/sbin/policy-rc.d
  [ -e $guard ] || { printf '#!/bin/sh\nexit 101\n' > $guard; chmod +x $guard; trap "rm -f $guard" EXIT; }
  apt-get update -qq >&2
  # Nothing that is there is changed; one package that is not to be had keeps none of the others away.
  install="apt-get install -y -qq --no-install-recommends --no-upgrade"
  export DEBIAN_FRONTEND=noninteractive
  $install $wanted >&2 || for one in $wanted; do $install "$one" >&2; done
  wanted=$(missing)
fi
if command -v npm > /dev/null && ! has_viewer; then
  mkdir -p "$viewer" && cp "$here"/client/results/viewer/package*.json "$viewer" &&
    npm ci --prefix "$viewer" --ignore-scripts --no-audit --no-fund --loglevel=error >&2 &&
    cp "$viewer/package-lock.json" "$viewer/installed"
fi
has_viewer || case " $(echo $wanted) " in *" npm "*) ;; *) wanted="$wanted npm" ;; esac
if [ -n "$wanted" ]; then
  echo "Missing here: $(echo $wanted). What needs them is not run. As root of a Debian machine:" >&2
  echo "  apt-get install --no-install-recommends $(echo $wanted)" >&2
fi
echo $wanted
# Where all must run (.ci/run), a test that is not run is a failure.
[ -z "$wanted" ] || [ -z "${PEERS_REQUIRED:-}" ]
