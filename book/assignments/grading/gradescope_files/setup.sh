#!/usr/bin/env bash
# Gradescope runs this once, when the image is made. TORCH_ARGS: more options for pip when it installs torch.
set -euo pipefail
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3 python3-venv
python3 -m venv /autograder/venv
/autograder/venv/bin/pip install --no-cache-dir ${TORCH_ARGS:-} torch
/autograder/venv/bin/pip install --no-cache-dir numpy scipy matplotlib scikit-learn
