# Sourced by the other scripts, from the project's root: finds a Python, keeps a virtual environment up to date.

# Prints the first Python 3.10 to 3.13 that runs and can make a virtual environment.
find_python() {
    local candidate
    for candidate in python3.12 python3.11 python3.13 python3.10 python3; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
            >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python 3.10 to 3.13 with the venv module was found. On Debian: apt-get install python3-venv" >&2
    return 1
}

# make_environment FOLDER EXTRAS: installs the project, editable, with pinned dependencies. An environment made
# from the same pyproject.toml and constraints.txt is used again.
make_environment() {
    local folder=$1 extras=$2 python stamp
    python=$(find_python) || return 1
    stamp=$("$python" - "$extras" <<'PYTHON'
import hashlib, pathlib, sys
files = b"".join(pathlib.Path(name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
print(hashlib.sha256(files).hexdigest(), sys.version.split()[0], sys.argv[1], pathlib.Path.cwd())
PYTHON
)
    if [[ -f $folder/stamp && $(<"$folder/stamp") == "$stamp" ]]; then
        return
    fi
    echo "Making $folder with $("$python" --version) ..."
    rm -rf "$folder"
    "$python" -m venv "$folder" || return 1
    "$folder/bin/python" -m pip install --quiet --quiet -c constraints.txt -e ".[$extras]" || return 1
    echo "$stamp" >"$folder/stamp"
}
