"""The chat page in headless Chromium: typing, streaming, stopping, several chats that a reload keeps, keyboard, phone,
dark mode, and text of the model that tries to be a program. NVLLM_TEST_SCREENSHOTS names a folder to look at."""
import json
import os
import unittest
from pathlib import Path

from browser import CHROMIUM, Browser
from server import DEMO, STORIES, Case, main

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
HOSTILE = ("<img src=x onerror=\"window.hit=1\"><script>window.hit=2</script>\n\n**bold** `<b>code</b>` "
           "[link](javascript:window.hit=3) [good](https://example.org/) [x](https://a\"onclick=\"window.hit=4)\n\n"
           "```html\n<script>window.hit=5</script>\n```\n\n- one\n- two\n\n1. first\n2. second\n\n# Title\n\n> quoted")


@unittest.skipUnless(CHROMIUM, "needs chromium")
class Page(Case):
    options = ("--device", "reference", "--threads", "1")

    @classmethod
    def model(cls):
        """A model whose answers take a while, so that they can be stopped."""
        if not STORIES.exists():
            return DEMO
        for path in STORIES.iterdir():
            (cls.folder / path.name).symlink_to(path)
        (cls.folder / "chat_template.jinja").write_text(TEMPLATE)
        return cls.folder

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        self.browser.size(1100, 760)
        self.browser.scheme("light")
        self.browser.open(self.server.url + "/")
        self.browser.js("localStorage.clear()")
        self.browser.open(self.server.url + "/?fresh")
        self.browser.wait("document.getElementById('model').textContent !== 'nano-vllm'")

    def shot(self, name):
        folder = os.environ.get("NVLLM_TEST_SCREENSHOTS")
        if folder:
            self.browser.screenshot(str(Path(folder) / (name + ".png")))

    def settings(self, **values):
        for name, value in values.items():
            self.browser.js(f"$('{name}').value = {json.dumps(value)}; $('{name}').oninput()")

    def ask(self, text, wait=True):
        self.browser.js("$('input').focus()")
        self.browser.type(text)
        self.browser.enter()
        if wait:
            self.browser.wait("!running && $('send').textContent === 'Send' && document.querySelectorAll('.assistant').length")

    def answers(self):
        return self.browser.js("chat().messages.filter(m => m.role === 'assistant').map(m => m.content)")

    def test_asks_streams_and_keeps_the_chat_over_a_reload(self):
        self.settings(max_tokens="60", temperature="0")
        self.ask("Once upon a time")
        answer, = self.answers()
        self.assertGreater(len(answer), 20)
        self.assertRegex(self.browser.js("document.querySelector('.tail').textContent"), r"^\d+ tokens, [\d.]+ tokens/s")
        want = self.server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Once upon a time"}],
                                                         "max_tokens": 60, "temperature": 0}).json
        self.assertEqual(answer, want["choices"][0]["message"]["content"])
        self.ask("and then")
        self.shot("light")
        self.browser.open(self.server.url + "/?again")
        self.assertEqual(len(self.answers()), 2)
        self.assertIn("Once upon a time", self.browser.js("$('column').textContent"))
        self.assertEqual(self.browser.js("$('max_tokens').value"), "60")
        self.assertEqual(self.browser.problems, [])

    def test_stop_button_ends_the_answer(self):
        lost = self.server.metric("nanovllm:clients_lost_total")
        self.settings(max_tokens="480", temperature="1", seed="3")
        self.ask("Once upon a time", wait=False)
        self.browser.wait("chat().messages.length === 2 && chat().messages[1].content.length > 5")
        self.assertEqual(self.browser.js("$('send').textContent"), "Stop")
        self.browser.js("$('send').click()")
        self.browser.wait("!running")
        self.server.wait_idle()
        self.assertEqual(self.server.metric("nanovllm:clients_lost_total"), lost + 1)
        self.assertIn("stopped", self.browser.js("$('column').textContent"))

    def test_escape_stops_and_several_chats_live_side_by_side(self):
        self.settings(max_tokens="480", system="Be brief.")
        self.ask("One", wait=False)
        self.browser.wait("chat().messages.length === 2 && chat().messages[1].content.length > 5")
        self.browser.key("Escape", 27)
        self.browser.wait("!running")
        self.browser.js("$('new').click()")
        self.settings(max_tokens="10")
        self.ask("Two")
        self.assertEqual(self.browser.js("kept.chats.map(c => c.title)"), ["Two", "One"])
        self.browser.js("document.querySelectorAll('#chats .open')[1].click()")
        self.assertIn("One", self.browser.js("$('column').textContent"))
        self.browser.js("document.querySelectorAll('#chats .drop')[1].click()")
        self.assertEqual(self.browser.js("kept.chats.map(c => c.title)"), ["Two"])

    def test_shift_enter_breaks_the_line(self):
        self.browser.js("$('input').focus()")
        self.browser.type("a")
        self.browser.enter(modifiers=8)
        self.browser.type("b")
        self.assertEqual(self.browser.js("$('input').value"), "a\nb")

    def test_text_of_the_model_never_becomes_a_program(self):
        self.browser.js("chat().messages.push({role:'user',content:" + json.dumps(HOSTILE) + "},"
                        "{role:'assistant',thought:" + json.dumps(HOSTILE) + ",content:" + json.dumps(HOSTILE) + "});"
                        "chat().title=" + json.dumps(HOSTILE) + "; draw()")
        self.browser.open(self.server.url + "/?hostile")
        self.assertIsNone(self.browser.js("window.hit"))
        self.assertEqual(self.browser.js("document.querySelectorAll('#column img, #column script, #column b').length"), 0)
        links = self.browser.js("[...document.querySelectorAll('#column a')].map(a => a.getAttribute('href'))")
        self.assertTrue(all(link.startswith("https://") for link in links), links)
        self.assertEqual(self.browser.js("document.querySelectorAll('#column a[onclick]').length"), 0)
        for tag, count in (("strong", 1), ("pre", 1), ("ul li", 2), ("ol li", 2), ("h2", 1), ("blockquote", 1)):
            self.assertEqual(self.browser.js(f"document.querySelectorAll('.assistant {tag}').length"), count, tag)
        self.shot("markdown")

    def test_nothing_is_loaded_from_elsewhere(self):
        self.browser.requests.clear()
        self.browser.open(self.server.url + "/?offline")
        self.ask("x", wait=False)
        self.browser.wait("!running")
        self.assertTrue(all(u.startswith((self.server.url, "data:")) for u in self.browser.requests), self.browser.requests)

    def test_errors_of_the_server_are_shown(self):
        self.settings(max_tokens="100000")
        self.ask("x")
        self.assertIn("context", self.browser.js("document.querySelector('.problem').textContent"))
        self.browser.problems.clear()  # Chromium reports the 400

    def test_dark_mode_follows_the_system_and_the_button(self):
        theme = "document.documentElement.dataset.theme"
        self.assertEqual(self.browser.js(theme), "light")
        self.browser.scheme("dark")
        self.browser.wait(theme + " === 'dark'")
        self.settings(max_tokens="60", temperature="0")
        self.ask("Once upon a time")
        self.shot("dark")
        self.browser.js("$('theme').click()")
        self.assertEqual(self.browser.js(theme), "light")
        self.browser.open(self.server.url + "/?theme")
        self.assertEqual(self.browser.js(theme), "light")

    def test_a_phone_has_room_for_everything(self):
        self.browser.size(360, 640, phone=True)
        self.settings(max_tokens="60", temperature="0")
        self.ask("Once upon a time")
        self.assertEqual(self.browser.js("document.documentElement.scrollWidth"), 360)
        self.shot("phone")
        self.browser.js("$('menu').click()")
        self.assertTrue(self.browser.js("document.body.classList.contains('side')"))
        self.browser.wait("$('side').getBoundingClientRect().left === 0")
        self.shot("phone-chats")
        self.browser.key("Escape", 27)
        self.assertFalse(self.browser.js("document.body.classList.contains('side')"))
        self.browser.js("$('toggle').click()")
        self.shot("phone-settings")
        small = self.browser.js("[...document.querySelectorAll('header button, #form button')]"
                                ".filter(b => b.offsetHeight && b.offsetHeight < 40).length")
        self.assertEqual(small, 0)

    def test_every_control_is_reached_by_tab(self):
        self.browser.js("$('toggle').click(); document.body.focus()")
        seen = set()
        for _ in range(40):
            self.browser.key("Tab", 9)
            seen.add(self.browser.js("document.activeElement.id"))
        self.assertTrue({"new", "toggle", "theme", "system", "temperature", "key", "input", "send"} <= seen, seen)


if __name__ == "__main__":
    main()
