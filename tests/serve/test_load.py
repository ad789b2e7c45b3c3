"""Many clients at once, each with a greedy answer of its own that is known beforehand: none lost, none mixed up.

CTest runs 10 seconds with 64 clients; NVLLM_TEST_LOAD="256 60" is the long run."""
import asyncio
import json
import os
import statistics
import time
import unittest
from pathlib import Path

from server import PROGRAM, SLOW, STORIES, Server, main

CLIENTS, SECONDS = map(int, os.environ.get("NVLLM_TEST_LOAD", "64 10").split())
NAMES = ["Lily", "Tom", "Ben", "Sue", "Max", "Anna", "Tim", "Mia", "Sam", "Lucy", "Jack", "Amy", "Bob", "Zoe", "Leo", "Kim"]
THINGS = ["ball", "dog", "cat", "tree", "boat", "cake", "hat", "car", "bird", "fish", "box", "book", "bug", "cup", "bed", "sun"]


def prompt(i):
    return f"{NAMES[i % 16]} saw a {THINGS[i // 16 % 16]} {'big ' * (i // 256)}and"


def body(i, **fields):
    return {"prompt": prompt(i), "max_tokens": 24 + i % 17, "temperature": 0, "ignore_eos": True, **fields}


class Client:
    """One connection that asks for its stream again and again."""

    def __init__(self, server, i, want, end):
        self.server, self.i, self.want, self.end = server, i, want, end
        self.answers = self.tokens = 0
        self.gaps = []

    async def run(self):
        reader, writer = await asyncio.open_connection(self.server.host, self.server.port, limit=1 << 20)
        data = json.dumps(body(self.i, stream=True)).encode()
        request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data
        while time.monotonic() < self.end:
            writer.write(request)
            await self.read_answer(reader)
            self.answers += 1
        writer.close()

    async def read_answer(self, reader):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        text, held, last = [], b"", None
        while size := int(await reader.readuntil(b"\r\n"), 16):
            held += (await reader.readexactly(size + 2))[:-2]
            now = time.monotonic()
            *events, held = held.split(b"\n\n")
            for event in events:
                if event == b"data: [DONE]":
                    continue
                text.append(json.loads(event[6:])["choices"][0]["text"])
                self.tokens += 1
            if last:
                self.gaps.append(now - last)
            last = now
        await reader.readexactly(2)
        assert "".join(text) == self.want, (self.i, "".join(text), self.want)


def memory(server):
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0


@unittest.skipUnless(STORIES.exists(), f"needs {STORIES}")
class Load(unittest.TestCase):
    options = ()

    def run_clients(self, server, seconds):
        wants = [server.complete(**body(i)).json["choices"][0]["text"] for i in range(CLIENTS)]
        end = time.monotonic() + seconds
        clients = [Client(server, i, wants[i], end) for i in range(CLIENTS)]

        async def all_of_them():
            await asyncio.gather(*(c.run() for c in clients))
        asyncio.run(all_of_them())
        server.wait_idle()
        return clients

    def test_streams_are_whole_and_unmixed(self):
        sequences = min(CLIENTS, 256)
        with Server(STORIES, *self.options, max_sequences=sequences) as server:
            self.run_clients(server, 1)
            start = memory(server)
            before, cpu = server.metric("vllm:generation_tokens_total"), server.cpu_seconds()
            clients = self.run_clients(server, SECONDS)
            made = server.metric("vllm:generation_tokens_total") - before
            gaps = sorted(g for c in clients for g in c.gaps)
            grown = memory(server) - start
            print(f"\n{CLIENTS} clients, {SECONDS} s: {sum(c.answers for c in clients)} answers, "
                  f"{made / SECONDS:.0f} tokens/s, gap median {statistics.median(gaps) * 1e3:.2f} ms, "
                  f"p99 {gaps[int(len(gaps) * 0.99)] * 1e3:.2f} ms, memory +{grown:.1f} MiB, "
                  f"server CPU {server.cpu_seconds() - cpu:.1f} s", flush=True)
            self.assertTrue(all(c.answers for c in clients))
            self.assertEqual(server.metric("nanovllm:clients_lost_total"), 0)
            if SLOW == 1:  # AddressSanitizer keeps up to 256 MB of freed memory; its leak check stands in
                self.assertLess(grown, 16)

    def test_other_settings_give_the_same_answers(self):
        """Chunked prompts, no prefix cache, a pool so small that sequences are preempted."""
        texts = set()
        for options in ((), ("--step-tokens", "16"), ("--no-prefix-cache",), ("--kv-memory", "640K"), ("--max-sequences", "3")):
            with Server(STORIES, "--context", "256", *options, max_sequences=16) as server:
                got = server.complete([prompt(i) for i in range(24)], max_tokens=40, temperature=0, ignore_eos=True)
                self.assertEqual(got.status, 200, got.text)
                texts.add("|".join(c["text"] for c in got.json["choices"]))
        self.assertEqual(len(texts), 1)

    def test_turns_of_a_chat_reuse_their_beginning(self):
        with Server(STORIES) as server:
            ids = server.post("/tokenize", {"prompt": "Once upon a time there was a little dog."}).json["tokens"]
            reused = []
            for _ in range(10):
                got = server.complete(ids, max_tokens=16, temperature=0, ignore_eos=True, logprobs=0).json
                ids += server.post("/tokenize", {"prompt": got["choices"][0]["text"] + " And", "add_special_tokens": False}
                                   ).json["tokens"]
                reused.append(got["usage"]["prompt_tokens_details"]["cached_tokens"])
            self.assertEqual(reused[0], 0)
            hits, asked = (server.metric(f"vllm:prefix_cache_{n}_total") for n in ("hits", "queries"))
            self.assertEqual(hits, sum(reused))
            if asked:
                self.assertGreater(reused[-1], reused[1])


if __name__ == "__main__":
    main()
