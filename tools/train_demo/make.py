"""The whole recipe in one command: python tools/train_demo/make.py --text FOLDER

FOLDER holds classics.tar.xz and tinystories.txt.xz. Needs one CUDA GPU, PyTorch, transformers, tokenizers, safetensors and numpy.
Leaves token data, the model folder and the evaluation under build/demo_model; nothing is written to models/demo.
"""
import argparse
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--text", type=pathlib.Path, required=True)
    p.add_argument("--out", type=pathlib.Path, default=HERE.parent.parent / "build" / "demo_model")
    a = p.parse_args()
    data, model, report = a.out / "data", a.out / "model", a.out / "report"
    for script, options in (("prepare.py", ["--text", a.text, "--out", data]),
                            ("train.py", ["--data", data, "--out", model]),
                            ("evaluate.py", ["--model", model, "--data", data, "--report", report])):
        subprocess.run([sys.executable, HERE / script, *map(str, options)], check=True)


if __name__ == "__main__":
    main()
