#!/bin/sh
# Installs GoalCover from this bundle, on a machine without any network: first every digest, then anything else.
set -eu
# Libraries and settings that these name, relative to the bundle perhaps, would be run in every program below.
libraries=${LD_LIBRARY_PATH:-}
unset LD_LIBRARY_PATH LD_PRELOAD LD_AUDIT GCONV_PATH LOCPATH NLSPATH OPENSSL_CONF OPENSSL_CONF_INCLUDE
unset OPENSSL_MODULES OPENSSL_ENGINES AWKPATH AWKLIBPATH GREP_OPTIONS BASH_ENV ENV CDPATH PYTHONPATH PYTHONHOME
LC_ALL=C
export LC_ALL
newline='
'

python_wanted='@PYTHON@' machine_wanted='@MACHINE@' glibc_wanted='@GLIBC@' judge='@JUDGE@'

usage() {
    cat <<TEXT
Usage: ./install.sh [--venv DIR] [--home DIR] [--python PROGRAM] [--key FILE] [--verify-only]

  --venv DIR        where the Python environment is made (~/goalcover-venv)
  --home DIR        where models are kept (GOALCOVER_HOME, else ~/.local/share/goalcover)
  --python PROGRAM  the Python to use (python$python_wanted)
  --key FILE        the signer's public key, which did not come with the bundle: check the signature first
  --verify-only     check signature and digests, install nothing
TEXT
}

fail() {
    printf 'Error: %s\n%s\n' "$1" "$2" >&2
    exit 1
}

say() {
    printf '%s\n' "$*"
}

absolute() {
    case $1 in
        /*) printf '%s' "$1" ;;
        *) printf '%s/%s' "$(pwd -P)" "$1" ;;
    esac
}

# With a relative folder in PATH, or an empty one, programs that lie in the bundle could stand in for the system's.
check_path() {
    case :$PATH: in
        *:[!/]*) fail "PATH names a folder that is not absolute, from where anything could be run." \
            "Set PATH to absolute folders, such as /usr/bin:/bin." ;;
    esac
}

# Python or a driver may need the libraries' folders again; relative ones would be sought in the bundle.
restore_libraries() {
    case :$libraries: in
        :: | *:[!/]* | *\;*) ;;
        *) export LD_LIBRARY_PATH="$libraries" ;;
    esac
}

check_machine() {
    if [ "$(uname -s)" != Linux ] || [ "$(uname -m)" != "$machine_wanted" ]; then
        fail "This bundle is for Linux on $machine_wanted, and this is $(uname -s) on $(uname -m)." \
            "Make one for this machine: scripts/bundle --platform."
    fi
    glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/^glibc //') || glibc=
    lowest=$(printf '%s\n%s\n' "$glibc_wanted" "$glibc" | sort -t. -k1,1n -k2,2n | head -n 1)
    if [ -z "$glibc" ] || [ "$lowest" != "$glibc_wanted" ]; then
        fail "This bundle needs glibc $glibc_wanted or newer, and this machine has ${glibc:-none}." \
            "Make one for an older system: scripts/bundle --platform."
    fi
}

check_python() {
    found=$("$python" -I -c 'import sys, venv; print("%s %d.%d" % ((sys.implementation.name,) + sys.version_info[:2]))' \
        2>/dev/null) || found="none that works"
    if [ "$found" != "cpython $python_wanted" ]; then
        fail "This bundle needs CPython $python_wanted, and $python is $found." \
            "Name another with --python, or make a bundle for it: scripts/bundle --python."
    fi
}

check_signature() {
    [ -f "$key" ] || fail "There is no key in $key." "Name the file with the signer's public key."
    [ -f SHA256SUMS.sig ] || fail "This bundle is not signed." "Ask its maker for one with SHA256SUMS.sig."
    command -v openssl >/dev/null || fail "There is no openssl here." "Install OpenSSL 3, or check the signature elsewhere."
    kind=$(openssl pkey -pubin -in "$key" -noout -text 2>/dev/null) || kind=
    case $kind in
        ED25519*) openssl pkeyutl -verify -rawin -pubin -inkey "$key" -in SHA256SUMS -sigfile SHA256SUMS.sig ;;
        *) openssl dgst -sha256 -verify "$key" -signature SHA256SUMS.sig SHA256SUMS ;;
    esac >/dev/null 2>&1 ||
        fail "SHA256SUMS was not signed with this key, or was altered since." "Do not use this bundle; ask its maker."
    say "The signature of SHA256SUMS is the key's."
}

unchecked() {
    fail "The bundle could not be checked: $1 failed." "See that you may read all of it, and run this again."
}

# Whether SHA256SUMS has such a line.
has_line() {
    status=0
    grep -Eq "$@" SHA256SUMS 2>/dev/null || status=$?
    [ "$status" -le 1 ] || unchecked grep
    return "$status"
}

# What find, awk and grep say counts only where they end well: one that dies has seen nothing odd either.
check_digests() {
    [ -f SHA256SUMS ] || fail "This bundle has no SHA256SUMS." "Copy it again, whole."
    odd=$(find . -name '*[[:cntrl:]\\]*' 2>/dev/null) || unchecked find
    if [ -n "$odd" ]; then
        odd=$(printf '%s' "${odd%%"$newline"*}" | tr -d '[:cntrl:]') || odd="something"
        fail "A name that begins with $odd holds a control character or a backslash." \
            "Do not use this bundle; copy it again."
    fi
    odd=$(find . ! -type f ! -type d 2>/dev/null) || unchecked find
    [ -z "$odd" ] || fail "${odd%%"$newline"*} is neither a file nor a folder." "Do not use this bundle; copy it again."
    files=$(find . -type f ! -path ./SHA256SUMS ! -path ./SHA256SUMS.sig 2>/dev/null) || unchecked find
    odd=$(printf '%s\n' "$files" | awk '
        NR == FNR { listed[substr($0, 67)] = 1; next }
        !(substr($0, 3) in listed) && !n++ { print substr($0, 3) }' SHA256SUMS - 2>/dev/null) || unchecked awk
    [ -z "$odd" ] || fail "$odd is not listed in SHA256SUMS." "Do not use this bundle; copy it again."
    if has_line -v '^[0-9a-f]{64}  [^\\[:cntrl:]]+$'; then
        fail "SHA256SUMS holds a line that is no digest and name." "Do not use this bundle; ask its maker."
    fi
    if has_line '^.{66}(/|.*\.\./)'; then
        fail "SHA256SUMS lists a file outside the bundle." "Do not use this bundle; ask its maker."
    fi
    if ! bad=$(sha256sum --check --strict --quiet SHA256SUMS 2>/dev/null); then
        bad=${bad%%"$newline"*}
        bad=${bad%%: FAILED*}
        fail "${bad:-SHA256SUMS} is missing, or not as listed in SHA256SUMS." "Copy the bundle again, or ask its maker."
    fi
    count=$(wc -l <SHA256SUMS) || unchecked wc
    say "$((count)) files are as listed in SHA256SUMS, and there is no other."
}

# The environment is made anew unless this very list of packages was installed whole.
install_packages() {
    mark=$venv/.goalcover-bundle
    wanted=$(sha256sum <requirements.txt) || fail "requirements.txt could not be read." "Copy the bundle again."
    wanted=${wanted%% *}
    if [ -f "$mark" ] && [ "$(cat "$mark")" = "$wanted" ]; then
        say "The packages are installed in $venv."
        return
    fi
    if [ -e "$venv" ] && [ ! -f "$mark" ]; then
        held=$(ls -A "$venv" 2>/dev/null) || held=unknown
        [ -z "$held" ] || fail "$venv was not made by this installer." "Name a new folder with --venv."
    fi
    mkdir -p "$venv"
    echo unfinished >"$mark"
    "$python" -I -m venv --clear --without-pip "$venv" || fail "No environment could be made in $venv." \
        "See that there is room and that you may write there."
    echo unfinished >"$mark"
    set -- wheels/pip-*.whl
    PIP_CONFIG_FILE=/dev/null "$venv/bin/python" -I "$1/pip" --isolated install --quiet --no-input --no-cache-dir \
        --disable-pip-version-check --no-index --find-links wheels --no-deps --only-binary :all: --require-hashes \
        --requirement requirements.txt ||
        fail "pip could not install the packages." "What it says above tells why; run this again when it is mended."
    printf '%s' "$wanted" >"$mark"
    say "$(wc -l <requirements.txt | tr -d ' ') packages are installed in $venv."
}

# Cards and models are copied beside their place and moved there whole; what is there already is kept if it is the same.
install_models() {
    mkdir -p "$home/models" "$home/cards"
    for card in home/cards/*.toml; do
        [ -f "$card" ] || continue
        name=$(basename "$card")
        place=$home/cards/$name
        if [ ! -e "$place" ]; then
            cp "$card" "$home/cards/.$name.arriving"
            mv "$home/cards/.$name.arriving" "$place"
        elif ! cmp -s "$card" "$place"; then
            fail "$place is another card of that name." "Remove that file, or name another folder with --home."
        fi
    done
    for model in home/models/*/; do
        [ -d "$model" ] || continue
        name=$(basename "$model")
        place=$home/models/$name
        if [ ! -e "$place" ]; then
            rm -rf "$home/models/.$name.arriving"
            cp -R "$model" "$home/models/.$name.arriving"
            mv "$home/models/.$name.arriving" "$place"
        elif ! cmp -s "$model/goalcover-manifest.json" "$place/goalcover-manifest.json"; then
            fail "$place holds other weights of $name." "Remove that folder, or name another one with --home."
        fi
        GOALCOVER_HOME=$home "$venv/bin/goalcover" models verify "$name" --full ||
            fail "The weights of $name were not copied whole." "Remove $place and run this again."
    done
}

venv=${HOME:-}/goalcover-venv home=${GOALCOVER_HOME:-${XDG_DATA_HOME:-${HOME:-}/.local/share}/goalcover}
python=python$python_wanted key='' verify_only=''
while [ $# -gt 0 ]; do
    case $1 in
        --venv | --home | --python | --key)
            [ $# -gt 1 ] || fail "$1 needs a value." "See ./install.sh --help."
            case $1 in
                --venv) venv=$2 ;;
                --home) home=$2 ;;
                --python) python=$2 ;;
                --key) key=$(absolute "$2") ;;
            esac
            shift 2
            ;;
        --verify-only)
            verify_only=yes
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            printf 'Error: There is no option %s.\n' "$1" >&2
            usage >&2
            exit 2
            ;;
    esac
done
check_path
venv=$(absolute "$venv") home=$(absolute "$home")
case $python in
    */*) python=$(absolute "$python") ;;
esac
case $0 in
    */*) cd -- "${0%/*}/" ;;
esac
for place in "$venv" "$home"; do
    case $place/ in
        "$(pwd -P)"/*) fail "$place lies in the bundle, which must stay as it is." "Name a folder elsewhere." ;;
    esac
done

[ -n "$verify_only" ] || check_machine
if [ -n "$key" ]; then
    check_signature
elif [ -f SHA256SUMS.sig ]; then
    say "This bundle is signed; the signature was not checked: give the signer's public key with --key."
fi
check_digests
[ -z "$verify_only" ] || exit 0
restore_libraries
check_python
install_packages
install_models
if [ -n "$judge" ]; then
    GOALCOVER_HOME=$home "$venv/bin/goalcover" doctor --judge "$judge" --run "$home" ||
        fail "GoalCover is installed, and $judge is not ready." "What stands above after FAIL says what to mend."
fi
say "Done. To use it:"
say "  export GOALCOVER_HOME='$home' PATH='$venv/bin':\"\$PATH\""
say "  goalcover --help"
