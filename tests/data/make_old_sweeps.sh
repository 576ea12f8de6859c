#!/usr/bin/env bash
# Makes old_sweeps.tar.xz with a checkout of version 0.1.0:  make_old_sweeps.sh CHECKOUT PYTHON FOLDER
# One sweep that was completed, one whose driver was killed in its second trial, one whose event log lost a piece. Of the
# trained weights those of the best and of the interrupted trial stay; paths become STORAGE and DATA_ROOT, which the tests
# replace.
set -eu
checkout=$1 python=$2 folder=$3
export PYTHONPATH=$checkout
mkdir -p "$folder" && cd "$folder"
common=(--scenario sample --model bprmf --concurrency 1 --seed 0 --set epochs=2 --set dim=8 --trials 3)
"$python" "$checkout/sweeps/grid.py" "${common[@]}" --name finished
"$python" "$checkout/sweeps/grid.py" "${common[@]}" --name interrupted &
driver=$!
until grep -q '"trial": 2, "result": {"epoch": 1,' mlruns/sweeps/interrupted/journal.jsonl 2> /dev/null; do sleep 0.05; done
kill -KILL $driver
wait $driver || true
cd mlruns/sweeps
rm -rf ./*/.lock ./*/ray.log ./*/tune finished/trials/t0[12] interrupted/trials/t01
mkdir -p damaged
cp finished/sweep.yaml damaged/
sed '5s/.\{60\}$//' finished/journal.jsonl > damaged/journal.jsonl
sed -i "s#$folder/mlruns#STORAGE#g; s#$folder/data#DATA_ROOT#g" ./*/sweep.yaml finished/best.yaml
sed -i 's/^name: finished/name: damaged/' damaged/sweep.yaml
sed -i 's/"host": "[^"]*"/"host": "host"/; s/"pid": [0-9]*/"pid": 1/; s/"machine": "[^"]*"/"machine": "a machine"/' ./*/journal.jsonl
tar -cJf "$folder/old_sweeps.tar.xz" damaged finished interrupted
