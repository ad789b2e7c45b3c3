"""Write the held-out text of the reference perplexity: forty stories of our own generator under a seed that training never used."""
import argparse
import pathlib
import random

from generators import stories


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", type=pathlib.Path, required=True)
    a = p.parse_args()
    rng = random.Random("held-out text of the reference")
    a.out.write_text("\n\n".join(stories.story(rng)["text"] for _ in range(40)) + "\n")


if __name__ == "__main__":
    main()
