#!/bin/bash
# Runs the blocks of a card one after another in one shell, as a reader pastes them, and stops at the first that fails.
# /rehearsal/blocks holds 01.bash, 02.python …; this leaves 01.bash.output and 01.bash.ended (exit code, start, end).
set -e -o pipefail

_empty_share() { if mountpoint --quiet /share; then find /share -mindepth 1 -delete; fi; }

_end() {
    echo "$1 $_started $EPOCHREALTIME" >"$_block.ended"
    _empty_share
}

{
    sed -n 's/^PRETTY_NAME="\(.*\)"$/\1/p' /etc/os-release
    docker --version
    python3 --version
    pip --version | cut -d ' ' -f 1-2
    curl --version | head -n 1 | cut -d ' ' -f 1-2
} >/rehearsal/machine
_empty_share

cd "$HOME"
trap '_end $?' EXIT
for _block in /rehearsal/blocks/*; do
    _started=$EPOCHREALTIME
    case $_block in
        *.python) python3 "$_block" ;;
        *)
            # shellcheck disable=SC1090  # the blocks come from the card
            source "$_block"
            ;;
    esac </dev/null >"$_block.output" 2>&1
    echo "0 $_started $EPOCHREALTIME" >"$_block.ended"
done
