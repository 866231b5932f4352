"""Prompts of every kind a server meets, by name: short, long, chat, code, other scripts, repetition, noise."""


def _chat(*turns: str, system: str = "You are a helpful assistant.") -> str:
    """Turns, the user's first, in the ChatML form that SmolLM2 and many others were trained on."""
    roles = ("user", "assistant")
    said = [f"<|im_start|>{roles[i % 2]}\n{text}<|im_end|>" for i, text in enumerate(turns)]
    return "\n".join([f"<|im_start|>system\n{system}<|im_end|>", *said, "<|im_start|>assistant\n"])


def _inventory(lines: int) -> str:
    """A report long enough to leave every window and to fill many cache blocks; about 22 tokens a line."""
    goods = ("copper wire", "lamp oil", "oak planks", "salt", "wool cloth", "glass panes", "iron nails")
    towns = ("Lübeck", "Bergen", "Riga", "Bruges", "Novgorod")
    body = [
        f"{i + 1}. On day {3 * i % 365 + 1} the ship from {towns[i % 5]} brought {17 * i % 90 + 10} units of "
        f"{goods[i % 7]} at {(i * 29 % 400) / 10:.1f} marks."
        for i in range(lines)
    ]
    return "Harbour ledger.\n" + "\n".join(body) + "\nThe most expensive cargo of the year was"


_CODE = '''def quicksort(items):
    """Sort a list without changing it."""
    if len(items) <= 1:
        return items
    pivot = items[len(items) // 2]
    left = [x for x in items if x < pivot]
'''

_C = """#include <stdio.h>
int main(void) {
    for (int i = 0; i < 10; i++) {
        printf("%d squared is %d\\n", i,"""

_JSON = '{"name": "Ada", "born": 1815, "fields": ["mathematics", "computing"], "letters": [{"to": "Babbage", '

PROMPTS: dict[str, str] = {
    "one_word": "Hello",
    "two_words": "Once upon",
    "capital": "The capital of France is",
    "arithmetic": "17 + 25 = 42. 33 + 48 =",
    "story": "The lighthouse keeper had not seen another person for eleven months when, one evening,",
    "definition": "In thermodynamics, entropy is a measure of",
    "list": "Seven rivers of Europe:\n1. Danube\n2. Rhine\n3. Volga\n4.",
    "chat_short": _chat("Hi!"),
    "chat_question": _chat("Why is the sky blue at noon and red at sunset?"),
    "chat_turns": _chat(
        "What should I cook tonight? I have eggs, spinach and rice.",
        "How about fried rice with egg and wilted spinach?",
        "Good. And without soy sauce?",
    ),
    "chat_system": _chat(
        "Explain recursion to a child.", system="You are a patient teacher. Answer in two sentences."
    ),
    "chat_json": _chat("Give me three colours as a JSON list, nothing else."),
    "code_python": _CODE,
    "code_c": _C,
    "json": _JSON,
    "html": "<!doctype html>\n<html><head><title>Signals</title></head><body><h1>",
    "chinese": "从前有座山,山里有座庙,庙里有个老和尚在",
    "russian": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья",
    "arabic": "كان يا ما كان في قديم الزمان ملك عادل يحب",
    "hindi": "भारत एक विशाल देश है जिसमें अनेक भाषाएँ",
    "japanese": "吾輩は猫である。名前はまだ無い。どこで生れたか",
    "greek_mixed": "Ο λόγος (logos) in Greek philosophy means",
    "emoji": "🎉🎂🥳 Happy birthday! 🎁 Your present is",
    "repetition": "ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha",
    "noise": "x7$kQ!! zz--|| 0x9f;; @@ ~~ qwpo 88:: lkj {{}} \\t\\t ^^ vvv 3.14159e-12 \x07 ::",
    "spaces": "a      b            c\n\n\n\n\td",
    "paragraph": (
        "The tide was out, and the flats lay bare to the horizon. Gulls walked about on them like clerks on an "
        "errand. Far off a boat lay on its side, waiting for water, and a man beside it, no larger than a comma, "
        "was scraping the hull. He had been at it since dawn. Every so often he stopped, looked at the sea, "
        "looked at his watch, and"
    ),
    "long_ledger": _inventory(48),
    "long_chat": _chat(f"Summarise this in one sentence.\n\n{_inventory(40)}"),
}
"""At least two are longer than 1,000 tokens in any tokenizer."""
