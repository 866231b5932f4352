"""The questions that a canary asks: fixed texts, whose answers are compared with earlier ones."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

GENERATED_TOKENS = 8
"""Tokens that each question has generated greedily."""

_SHORT = (
    "A lighthouse keeper writes down the weather every evening. Tonight the wind turned north, the glass fell by "
    "nine millibars, and the first ships"
)

_LONG = """\
Minutes of the harbour council, third session. Present were the harbour master, two pilots, the dredging engineer, \
the clerk and seven members of the public. The clerk read the minutes of the second session, which were approved \
with one correction: the depth of the eastern channel is 9.4 metres at mean low water, not 4.9.

1. The engineer reported on the survey of 14 March. Sounding lines were run every 20 metres along 2,600 metres of the \
channel. Of 131 soundings 118 were within 0.3 metres of the chart, nine were shallower by up to 0.8 metres, and four, \
all near the old mole, could not be explained. She asked for a second survey before anything is dredged. A pilot \
objected that the four soundings lie where the ferry Margarete touched ground in January, and that waiting is itself a \
risk. The council resolved, five votes to two, to mark the place with a buoy at once and to repeat the survey in April.

2. Fees. The following table was proposed and accepted without debate:

    length (m)   | per day | per month
    up to 8      |    6.50 |     120
    8 to 12      |    9.00 |     165
    12 to 20     |   15.75 |     290

3. The clerk has had the booking program changed so that a berth cannot be given away twice. The part that was wrong:

    def is_free(berth, first, last):
        for booking in berth.bookings:
            if booking.first <= last and first <= booking.last:
                return False
        return True

It had compared first with first and last with last. A member of the public asked whether old bookings are checked \
too; they are, since Tuesday, and three pairs were found that overlap.

4. A letter from the town of Skagen was read: "Kære venner, tak for jeres brev om fyret. Vi har stadig den gamle \
linse, og I må gerne låne den til udstillingen." The council thanks its friends and accepts the loan of the lens.

5. Any other business. The harbour master reminded everybody that the siren will be tested on the first Monday of each \
month at 11:00, one long tone of twelve seconds; two tones mean a real alarm, and nobody should wait for the third. \
The next session is on 12 May. In short, the council decided to"""

_CHAT_SYSTEM = "You answer in one sentence."
_CHAT_USER = "Why does bread rise when it is baked with yeast?"


@dataclass(frozen=True, slots=True)
class Question:
    """One question. source says where the prompt comes from.

    text: completed as it is; chat: through the chat template; repeat: the text of another question again, with
    the same cache salt, so that it is read from the prefix cache; extend: another question's text with the
    tokens it was answered with, so that what was decoded is now prefilled.
    """

    name: str
    source: Literal["text", "chat", "repeat", "extend"]
    text: str = ""
    of: str = ""


QUESTIONS = (
    Question("short", "text", _SHORT),
    Question("long", "text", _LONG),
    Question("chat", "chat", json.dumps([["system", _CHAT_SYSTEM], ["user", _CHAT_USER]])),
    Question("repeat", "repeat", of="long"),
    Question("extend", "extend", of="short"),
)
"""In the order in which they are asked: a question comes after the one it is made of."""

BESIDE = "beside"
"""Name of what is asked at the same time, so that the batch is another one each time; nobody compares its answers."""

BESIDE_TEXT = _LONG

NAMES = frozenset(question.name for question in QUESTIONS)

DIGEST = hashlib.blake2b(
    json.dumps([asdict(question) for question in QUESTIONS]).encode(), digest_size=4
).hexdigest()
"""8 hexadecimal digits that change with the questions: answers to others are never compared."""
