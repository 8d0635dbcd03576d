#!/usr/bin/env bash
# pyconc on every Python from 3.11 to 3.15, free-threaded ones too.
#
#   interpreters.sh list               the interpreters found: name and path
#   interpreters.sh test [NAME...]     installs .cache/pyconc.tar.gz (`make matrix` makes it) under each and runs the tests
#   interpreters.sh sanitize PYTHON    the same for one, built with AddressSanitizer and UndefinedBehaviorSanitizer
#   interpreters.sh tsan PYTHON        the tests of threads for one, built with ThreadSanitizer (a quarter of an hour)
#   interpreters.sh get                fetches 3.13t, 3.14 and 3.15 (Debian, as root, about ten minutes)
#   interpreters.sh run NAME CMD...    CMD with python3 being the interpreter NAME
#
# TESTS="tests/ipc tests/net": these alone.
#
# Searched: $PYCONC_PYTHONS (paths), PATH, ~/.pyenv/versions and what `get` left in $PYCONC_INTERPRETERS
# (default /var/cache/pyconc-interpreters). There, 3.13t is built from Debian 13's source package; 3.14 and 3.15 live in
# a Debian unstable tree that is entered with chroot, this folder mounted at /src.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${PYCONC_INTERPRETERS:-/var/cache/pyconc-interpreters}
tree=$cache/unstable
chrooted="3.14 3.15"
read -ra suites <<<"${TESTS:-tests}"

# Prints the name (3.12, 3.13t) and path of a Python that can build an extension and make a virtual environment.
describe() {
  "$1" -c '
import ensurepip, os, sys, sysconfig, venv
os.stat(sysconfig.get_path("include") + "/Python.h")
if (3, 11) <= sys.version_info[:2] <= (3, 15) and sys.implementation.name == "cpython":
    print("%d.%d" % sys.version_info[:2] + "t" * bool(sysconfig.get_config_var("Py_GIL_DISABLED")), sys.executable)
' 2>/dev/null
}

candidates() {
  local pattern='python3.1[1-5] python3.1[1-5]t' dir one
  printf '%s\n' ${PYCONC_PYTHONS:-}
  while IFS= read -r -d : dir; do
    for one in $pattern; do compgen -G "$dir/$one" || true; done
  done <<<"$PATH:"
  for one in $pattern; do
    compgen -G "$HOME/.pyenv/versions/*/bin/$one" || true
    compgen -G "$cache/*/bin/$one" || true
  done
}

list() {
  local path name seen=" "
  while read -r path; do
    read -r name path < <(describe "$path") || continue
    [[ $seen != *" $name "* ]] || continue
    seen+="$name "
    echo "$name $path"
  done < <(candidates)
  for name in $chrooted; do
    if [[ -e $tree/ready && $seen != *" $name "* ]]; then echo "$name $tree"; fi
  done
}

# A virtual environment in $1 of the Python $2 with the packed source installed, made anew when that has changed.
# The tests run in an empty folder: from here they would import the folder pyconc/ without its extension modules.
install_and_test() {
  local work=$1 python=$2; shift 2
  local bin=$work/venv/bin archive=.cache/pyconc.tar.gz
  mkdir -p "$work/cwd"
  (
    flock 9     # another part of the tests may have come first, and is making it
    if [[ ! $work/built -nt $archive || ! -x $bin/python ]]; then
      "$python" -m venv --clear "$work/venv" || exit
      "$bin/python" -m pip install -q --disable-pip-version-check --prefer-binary "pyconc[test] @ file://$PWD/$archive" || exit
      touch "$work/built"
    fi
  ) 9>"$work/lock" || return
  local tests=("${suites[@]/#/$PWD/}")
  ( bin=$PWD/$bin; cd "$work/cwd"; exec env -u PYTHONPATH "$@" "$bin/python" -m pytest -p no:cacheprovider "${tests[@]}" )
}

test_one() {
  local name=$1 path=$2
  echo "== $name: $path"
  if [[ $path == "$tree" ]]; then
    run "$name" tests/interpreters.sh inside "$name"
  else
    install_and_test ".cache/matrix/$name" "$path"
  fi
}

test_all() {
  local name path failed="" wanted=" $* " passed=""
  while read -r name path <&3; do
    [[ $# -eq 0 || $wanted == *" $name "* ]] || continue
    if ( test_one "$name" "$path" ) </dev/null; then passed+=" $name"; else failed+=" $name"; fi
  done 3< <(list)
  echo "== passed:${passed:- none}; failed:${failed:- none}"
  [[ -z $failed && -n $passed ]]
}

# malloc under every allocation, or an overflow inside one of CPython's arenas stays unseen. CPython leaves memory
# allocated at exit by design: leaks are the business of tests/leaks.
sanitize() {
  local libraries
  libraries="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
  export PYCONC_SANITIZE=1
  install_and_test .cache/sanitize "$1" \
    LD_PRELOAD="$libraries" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONMALLOC=malloc
}

# The tests whose threads share what pyconc's C code keeps. Not those that fork: a child of a process with threads may
# start none under ThreadSanitizer. A report of any process, whose exit status a test may not look at, is a failure.
tsan() {
  local reports=$PWD/.cache/tsan/reports status=0
  rm -rf "$reports"
  mkdir -p "$reports"
  suites=(tests/{base,chaos,hash,native,parallel,pool,sync} tests/ipc/test_threads.py)
  export PYCONC_SANITIZE=thread
  install_and_test .cache/tsan "$1" \
    LD_PRELOAD="$(gcc -print-file-name=libtsan.so)" PYTEST_ADDOPTS="-k 'not fork and not child'" \
    TSAN_OPTIONS="log_path=$reports/of:history_size=7:second_deadlock_stack=1:suppressions=$PWD/tests/tsan.supp" || status=$?
  if compgen -G "$reports/*" >/dev/null; then
    cat "$reports"/*
    status=1
  fi
  return "$status"
}

mirror() { apt-cache policy | grep -o 'http[^ ]*/debian' | head -n 1; }

get_free_threaded() {
  [[ ! -x $cache/3.13t/bin/python3.13t ]] || return 0
  apt-get install -y -qq dpkg-dev build-essential zlib1g-dev libssl-dev libffi-dev libbz2-dev liblzma-dev libsqlite3-dev
  local work; work=$(mktemp -d); mkdir -p "$work/lists/partial" "$work/archives/partial"
  echo "deb-src $(mirror) trixie main" >"$work/sources.list"
  local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=-
             -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work")
  ( cd "$work"
    "${apt[@]}" update
    "${apt[@]}" source --download-only python3.13
    tar xf python3.13_*.orig.tar.xz
    cd Python-3.13*
    ./configure -q --disable-gil --prefix="$cache/3.13t"
    make -s -j"$(nproc)"
    make -s install )
  rm -rf "$work"
}

get_unstable() {
  [[ ! -e $tree/ready ]] || return 0
  apt-get install -y -qq debootstrap
  debootstrap --variant=minbase \
      --include=ca-certificates,gcc,libc6-dev,make,git,pkg-config,libuv1-dev,libssl-dev,python3.14-dev,python3.14-venv \
      sid "$tree" "$(mirror)"
  cp /etc/apt/apt.conf.d/* "$tree/etc/apt/apt.conf.d/" 2>/dev/null || true
  cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/" 2>/dev/null || true
  cp /etc/resolv.conf "$tree/etc/" 2>/dev/null || true
  chroot "$tree" apt-get install -y -qq python3.15-dev python3.15-venv libpython3.14-testsuite libpython3.15-testsuite
  touch "$tree/ready"
}

run() {
  local name=$1 path; shift
  path=$(list | awk -v name="$name" '$1 == name {print $2}')
  [[ -n $path ]] || { echo "no interpreter $name here; see: tests/interpreters.sh list" >&2; return 2; }
  if [[ $path != "$tree" ]]; then
    local bin=.cache/bin/$name
    mkdir -p "$bin"
    ln -sf "$path" "$bin/python3"
    PATH=$PWD/$bin:$PATH "$@"
    return
  fi
  # A mount namespace of its own: the mounts vanish with the command.
  unshare --mount bash -c '
    tree=$1 name=$2 here=$3; shift 3
    mount -t proc proc "$tree/proc"; mount --rbind /dev "$tree/dev"
    mkdir -p "$tree/src" "$tree/opt/python-$name"; mount --bind "$here" "$tree/src"
    ln -sf "/usr/bin/python$name" "$tree/opt/python-$name/python3"
    exec chroot "$tree" /usr/bin/env "PATH=/opt/python-$name:/usr/bin:/bin:/usr/sbin:/sbin" \
      bash -c "cd /src && exec \"\$@\"" run "$@"' \
    run "$tree" "$name" "$PWD" "$@"
}

case ${1:-} in
  list) list ;;
  test) shift; test_all "$@" ;;
  inside) install_and_test ".cache/matrix/$2" python3 ;;
  sanitize) sanitize "$2" ;;
  tsan) tsan "$2" ;;
  get) export DEBIAN_FRONTEND=noninteractive; mkdir -p "$cache"; get_unstable; get_free_threaded; list ;;
  run) shift; run "$@" ;;
  *) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
