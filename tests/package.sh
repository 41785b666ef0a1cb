#!/bin/sh
# What a new user does with an installed wheel, in an empty folder, away from the sources: sh tests/package.sh BIN
set -eu
bin=$(cd "$1" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$bin/prunesearch" --help >/dev/null
"$bin/prunesearch" explain --model torchvision:resnet18 --input 1x3x64x64 --json >/dev/null
"$bin/prunesearch" search --model zoo:resnet8 --data digits --budget macs=50% --n-trials 8 --out small.safetensors
"$bin/prunesearch" status --study sqlite:///search.db
"$bin/prunesearch" report --study sqlite:///search.db --out report.html
"$bin/prunesearch" verify --model zoo:resnet8 --input 2x1x8x8 --pruned small.safetensors
test -s report.html
"$bin/python" -c "
import pathlib, prunesearch
assert pathlib.Path(prunesearch.__file__).with_name('py.typed').exists()
"
"$bin/python" -c "
from prunesearch.testing import SearcherContract, promises
class Suite(SearcherContract):
    searcher = 'random'
    test_the_same_proposals_come_in_another_process_with_another_hash_seed = None  # a program has no name to import
for promise in promises(Suite()):
    promise()
"
