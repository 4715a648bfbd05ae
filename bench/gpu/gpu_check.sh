#!/usr/bin/env bash
# tlbench's first minutes on a GPU. It runs in the checkout's root and ends after BUDGET seconds (525 where not said).
#   bash gpu_check/gpu_check.sh [STEP…]      steps: env tests losses bare quick speedup cells gpu_infer gpu (default: all)
# Every step is a process of its own with its own limit, so that one that hangs costs only its time; after each, what
# there is lies in OUT (5 files, ./gpu_check_out where not said). DEVICE=cpu TINY=1: the same, tiny, without a GPU.
# The exit status tells nothing of the findings: read summary.txt and probe.jsonl.
set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ -f pyproject.toml ] && [ -d tlbench ] || { echo "$0: run it in the checkout's root, not in $PWD" >&2; exit 2; }

ALL="env tests losses bare quick speedup cells gpu_infer gpu"
WANTED=${*:-$ALL}
for name in $WANTED; do
  case " $ALL " in *" $name "*) ;; *) echo "$0: unknown step '$name'; the steps are $ALL" >&2; exit 2 ;; esac
done

BUDGET=${BUDGET:-525}
PY=${PY:-python3}
export OUT=${OUT:-$PWD/gpu_check_out} DEVICE=${DEVICE:-cuda} TINY=${TINY:-0}
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) || exit 2
W=$(mktemp -d) && trap 'rm -rf "$W"' EXIT || exit 2
LOGS=$W/logs RUNS=$W/runs SUMMARY=$OUT/summary.txt
mkdir -p "$LOGS" "$RUNS"
rm -f "$OUT/tests.xml"
: > "$SUMMARY"
: > "$OUT/probe.jsonl"
# The checkout's modules come before the wheels of .site, which come before the machine's own packages.
export PYTHONPATH="$PWD:$PWD/.site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 COLUMNS=150
# There may be no network: a download must fail at once, not after a time-out.
export http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 HF_HUB_OFFLINE=1
# All caches are empty at first and go with the folder.
export TMPDIR=$W TORCH_HOME=$W/torch HF_HOME=$W/hf TLBENCH_CACHE=$W/cache
export TORCHINDUCTOR_CACHE_DIR=$W/inductor TRITON_CACHE_DIR=$W/triton
TLBENCH=("$PY" -c 'from tlbench.cli import main; main()')

wanted() { case " $WANTED " in *" $1 "*) ;; *) return 1 ;; esac; }
tiny() { [ "$TINY" = 1 ] && echo "$1" || echo "$2"; }
cuda() { [ "$DEVICE" = cuda ]; }

collect() {  # What there is so far, without the report's pages and figures where they are too much to carry home.
  tar -C "$W" -czf "$OUT/logs.tar.gz" logs
  tar -C "$W" -czf "$OUT/runs.tar.gz" --exclude='*.png' --exclude='*.svg' runs
  if [ "$(wc -c < "$OUT/runs.tar.gz")" -gt 16000000 ]; then
    tar -C "$W" -czf "$OUT/runs.tar.gz" --exclude='*.html' --exclude=figures runs
  fi
}

room() {  # SECONDS: no more of them than are left.
  local left=$((BUDGET - SECONDS - 8))
  echo $(($1 < left ? $1 : left))
}

limited() {  # NAME SECONDS COMMAND…: INT lets pytest and tlbench write down what is finished.
  local name=$1 limit=$2
  shift 2
  STEP_SECONDS=$limit timeout --foreground -s INT -k 15 "$limit" "$@" > "$LOGS/$name.log" 2>&1 < /dev/null
}

step() {  # NAME SECONDS COMMAND…
  local name=$1 limit begin=$SECONDS
  wanted "$name" || return
  limit=$(room "$2")
  shift 2
  if [ "$limit" -lt 10 ]; then
    echo "$name: left out, no time" | tee -a "$SUMMARY"
    return
  fi
  limited "$name" "$limit" "$@"
  echo "$name: rc $?, $((SECONDS - begin)) of $limit s, at $SECONDS s" | tee -a "$SUMMARY"
  tail -n 6 "$LOGS/$name.log" | cut -c1-200
  collect
}

command -v nvidia-smi > /dev/null && nvidia-smi > "$LOGS/nvidia-smi.log" 2>&1

step env "$(tiny 120 45)" "$PY" "$HERE/env.py"

# Neither is timed, so they share the machine: the tests that need a GPU or change with one, and the losses.
TESTS=
limit=$(room "$(tiny 300 110)")
if wanted tests && [ "$limit" -ge 10 ]; then
  OMP_NUM_THREADS=4 limited tests "$limit" "$PY" -m pytest -p no:cacheprovider -q -rA --tb=short --durations=15 \
    --continue-on-collection-errors --junitxml="$OUT/tests.xml" tests \
    -k "test_every_key or test_on_cuda or test_env_prints or speed_up or witness or waited or is_left_to_the_children" &
  TESTS=$!
fi
step losses "$(tiny 400 90)" "$PY" "$HERE/losses.py"
if [ -n "$TESTS" ]; then
  wait "$TESTS"
  echo "tests: rc $?, at $SECONDS s: $(tail -n 1 "$LOGS/tests.log")" | tee -a "$SUMMARY"
  collect
fi

step bare "$(tiny 300 75)" "$PY" "$HERE/bare.py"

QUICK=(bench/ --benchmark-only -p no:cacheprovider -q --tl-out="$RUNS/quick")
if cuda; then QUICK+=(-m speedup); else QUICK+=(-m "not speedup" --tl-device=cpu); fi
[ "$TINY" = 1 ] && QUICK+=(--tl-backbone=resnet18 --tl-head=linear --tl-freeze=linear_probe --tl-image-size=32
  --tl-train-size=40 --tl-epochs=1 --tl-weights=random)
step quick "$(tiny 400 130)" "$PY" -m pytest "${QUICK[@]}"
[ -d "$RUNS/quick" ] && step speedup 20 "${TLBENCH[@]}" speedup "$RUNS/quick"

step cells "$(tiny 400 80)" "$PY" "$HERE/cells.py"

# The grid's inference comes first, then its training on fewer images, as far as the time goes.
GPU=(run --grid bench/grids/gpu.toml --weights random)
[ "$TINY" = 1 ] && GPU+=(--backbone resnet18 --freeze linear_probe --image-size 32 --batch-size 8)
cuda || GPU+=(--device cpu --precision "fp32,bf16")
step gpu_infer "$(tiny 200 70)" "${TLBENCH[@]}" "${GPU[@]}" --task infer --isolate none --out "$RUNS/gpu-infer"
step gpu "$(tiny 300 220)" "${TLBENCH[@]}" "${GPU[@]}" --task train --cell-timeout 60 --train-size "$(tiny 40 448)" \
  --epochs 2 --out "$RUNS/gpu-train"
collect
echo "=== $SECONDS s"
cat "$SUMMARY"
ls -l "$OUT"
