"""Arithmetic, counting and comparing: questions in many wordings, answers that restate the sum."""

from __future__ import annotations

import random

from .grammar import say

Turns = list[tuple[str, str]]

ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
ONES += "seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def words(n: int) -> str:
    """A number below 100 in words."""
    if n < 20:
        return ONES[n]
    return TENS[n // 10 - 2] + ("-" + ONES[n % 10] if n % 10 else "")


def spell(n: int, rng: random.Random, chance: float) -> str:
    """A number in digits or, with this chance, in words."""
    if rng.random() >= chance:
        return str(n)
    text = words(n)
    return text.replace("-", " ") if rng.random() < 0.3 else text


# An opening that turns any expression "{e}" into a question or an order.
ASK = [
    "{e}", "{e}?", "{e} =", "{e}=", "{e} = ?", "{e}=?", "{e} is", "{e} is?", "{e} equals", "{e} equals what?", "{e} makes", "{e} makes what?", "{e} is (how much|what)?",
    "(what is|what's|whats|what does|how much is|how much does) {e}?",
    "(what is|what's) the (result|answer|value|outcome|solution) (of|to|for) {e}?",
    "(calculate|compute|work out|solve|evaluate|figure out|determine|find|do|give me|tell me|answer|say|show me|reckon|try|add up|sum up) {e}",
    "(calculate|compute|work out|solve|evaluate|do) (this|the following|this for me|this sum|this one): {e}",
    "(can|could|will|would) you (please |) (calculate|compute|work out|solve|do|tell me|figure out|evaluate) {e}( for me|)?",
    "(i need|i want|give me|tell me|i would like|i'd like|show me) (the result of|the answer to|to know|the value of|) {e}",
    "(what do|what will|what would) (i|you|we) get (if i type|for|from|with|out of) {e}?",
    "(do you know|can you tell me|could you tell me|please tell me|tell me) (what|how much) {e} is?",
    "(what|how much) (does|do|would|will) {e} (make|give|equal|come to|amount to|be|yield|add up to|total|produce)?",
    "(quick|easy|simple|math|maths|a sum|arithmetic|mental arithmetic)( question| quiz| problem| test|): {e}",
    "(my homework says|my teacher asks|my homework is|the exercise is|the task is|the question is|here is a sum|a little maths|some maths|let's do maths|maths time): {e}",
    "(help me with|help with|i am stuck on|i can't do|i struggle with|stuck on) {e}",
    "(is|are) you able to (do|compute|work out|calculate) {e}?",
    "if (i|you) (calculate|compute|type|do|work out|take) {e}, what (is the result|is it|do i get|do you get|comes out|is the answer)?",
    "and (what is|what's|what about|how about|how much is|) {e}?", "(what about|how about|now|next|then|ok and|okay,|so) {e}?", "{e}, (what is it|how much is that|what's that|what is the answer|please solve)?",
    "{e} (please|thanks|pls|now|...)", "(solution|result|answer|value) of {e}?", "{e} = x, (what is x|find x|solve for x)?", "(sum|maths|math|calc|calculation|compute): {e}",
]

PLUS = ["{a}+{b}", "{a} + {b}", "{a} +{b}", "{a} plus {b}", "{a} plus {b}", "{a} added to {b}", "{a} and {b} together", "{a} together with {b}", "{a} increased by {b}", "{a} more than {b}",
        "the sum of {a} and {b}", "the sum {a} + {b}", "the total of {a} and {b}", "{a} & {b} added", "sum of {a} and {b}", "adding {a} and {b}", "adding {a} to {b}", "the addition of {a} and {b}", "{a} with {b} added"]
PLUS_WHOLE = [
    "(add|sum|sum up|total|add up|add together|combine|put together) {a} and {b}", "add {a} to {b}", "add {a} (with|+|plus) {b}", "add (the numbers|the two numbers|these numbers|these|these two|both|up)(:|) {a} (and|,) {b}",
    "(can|could|would|will) you (please |) (add|sum|total|add together|add up) {a} (and|to|with) {b}?", "what (do|would|will) you get (if|when) you add {a} (to|and) {b}?",
    "what (is|do i get|comes out|happens|is the result) (if|when) (i|we|you) (add|put together|sum|combine) {a} (and|with|to) {b}?", "(if i add|adding|when i add) {a} (and|to) {b}, what (do i get|is the result|is it|is the total|is the sum)?",
    "start (with|at|from) {a} and add {b}", "take {a} and add {b}( to it|)", "{a}, (then|now|and then) add {b}", "(increase|raise) {a} by {b}", "what is {a} increased by {b}?", "what number is {b} more than {a}?",
    "(which|what) number do (i|you|we) get by adding {a} (and|to) {b}?", "how (many|much) (are|is) {a} and {b}( together| in total| altogether| combined)?", "(sum|total) of {a}, {b}?", "{a} and {b}, what is (the sum|their sum|the total|the total of these)?",
    "what (is|do|does) {a} and {b} (make|add up to|sum to|together|come to|give together)?", "(i want|i need|give me|tell me|find|what is|what's) the (sum|total) of {a} and {b}",
    "i (have|had|own|hold|bought|collected|found|picked|counted) {a} {n} and (get|got|found|buy|bought|receive|received|pick up|was given|am given|add|take) {b} more. how many( {n}|) (do i have|are there|is that|have i got|are they|do i own)( now| in total| altogether| in all|)?",
    "(there are|i see|we have|a box holds|a basket has|here are|on the table are) {a} {n} and {b} more (come|arrive|are added|join|appear|are put there). how many( {n}|) (are there|are there now|is that|do we have)( in total| altogether|)?",
    "{name} has {a} {n}, (and |) {other} has {b}( {n}|). how many (do they have|{n} do they have|is that|{n} are there|have they)( together| in total| altogether| in all| combined)?",
    "{name} has {a} {n} and (gets|finds|buys|receives|wins|picks|is given) {b} more. how many( {n}|) (does {name} have|does that make|are there|are these)( now| in total| altogether|)?",
    "{name} (bought|ate|saw|read|sold|made|counted) {a} {n} (yesterday|on monday|in the morning|first|last week) and {b} (today|on tuesday|in the evening|later|this week). how many (is that|in total|altogether|were there|{n} is that)( in total|)?",
    "(if|suppose|say|imagine) (i|you|we) have {a} {n} and (someone|my friend|{name}|my mother) gives (me|you|us) {b} more, how many (do i have|do you have|is that|are there|do we have)( now|)?",
    "i have {a} {n} and {b} {m}. how many (things|items|pieces|objects) (do i have|are there|is that)( in total| altogether|)?",
    "(a bus|a train|a room|a boat|a class) has {a} people( in it|) and {b} more (get on|come in|enter|join|arrive). how many( people|) (are there|are in it|is that)( now|)?",
]
PLUS_WHOLE += [
    "{who} (paid|spent|earned|saved|won|got|owed|collected|walked|ran|drove|read|ate|drank|caught|sold|baked|planted|wrote|used|carried|bought|scored|found) {a} {unit}(,| and|;| first,|.) (then|later|afterwards|after that|next|and then|and later|the next day) {b}( {unit}|)( more| again| extra|). (how many|how many {unit}|how much) (is that|was that|in total|altogether|does that make|is it|are these|were there)( in total| altogether| in all| together|)?",
    "{who} (paid|spent|earned|saved|won|walked|ran|drove|read|ate|drank|caught|sold|baked|planted|scored) {a} {unit} and (then |later |afterwards |)(another |)({b} more|{b}|{b} {unit}|{b} {unit} more). (what is the total|what is the sum|what does that make|what is it in total|total|how many in all)?",
    "one (book|ticket|cake|toy|pen|apple|coat) costs {a} {unit} and (another|the other|a second|one more) {b}( {unit}|). (how much|what) (do they cost|is the price of both|must i pay|do i pay|is it)( together| in total|)?", "{who} is {a} years old. how old (will {who} be|is that) in {b} years?",
    "(first|yesterday|on monday|in the morning) {a} {n}, (then|today|on tuesday|in the evening) {b}( {n}|). (how many|how many {n}|what is the total)( in all| together| altogether|)?",
]
MINUS = ["{a}-{b}", "{a} - {b}", "{a} -{b}", "{a} minus {b}", "{a} minus {b}", "{a} take away {b}", "{a} less {b}", "{a} decreased by {b}", "{a} reduced by {b}", "{b} less than {a}", "{b} subtracted from {a}",
         "the difference (of|between) {a} and {b}", "the difference {a} - {b}", "difference between {a} and {b}", "subtracting {b} from {a}", "{b} taken (away from|from) {a}", "{a} without {b}", "{b} fewer than {a}", "{a} with {b} taken away"]
MINUS_WHOLE = [
    "(subtract|take|take away|deduct|remove|pull|minus) {b} from {a}", "(can|could|would|will) you (please |) (subtract|take|take away|deduct) {b} from {a}?", "(start with|start at|start from|take|from) {a}(,| and) (subtract|take away|take off|remove|deduct) {b}",
    "what (do|would|will) (i|you|we) get (if|when) (i|you|we) (subtract|take|take away) {b} from {a}?", "what (is left|remains|stays|is left over) (if|when|after) (i take|you take|we take|taking|i subtract|subtracting|you remove) {b} (from|away from|off) {a}?",
    "(if i take|taking|if you subtract|subtracting|if i remove) {b} from {a}, what (is left|remains|do i get|is the result|is it|is left over)?", "how (much|many) (is|are) left (if|when) (i|you|we) take {b} (from|away from|off) {a}?",
    "(decrease|reduce|lower) {a} by {b}", "what number is {b} (less|smaller|fewer) than {a}?", "how much (more|bigger|larger|greater|higher) is {a} than {b}?", "how far is it from {b} to {a}?", "by how much is {a} (bigger|larger|greater|more) than {b}?",
    "what (must|do|should) (i|we|you) add to {b} to get {a}?", "{b} plus what (is|makes|equals|gives) {a}?", "{b} + ? = {a}", "(what is|what's|tell me|find|give me|compute|i need) the difference (between|of) {a} and {b}",
    "i (have|had|own|hold|bought|baked|picked) {a} {n} and (give away|gave away|eat|ate|lose|lost|sell|sold|drop|dropped|use|used|throw away|hand out|break) {b}( of them|). how many( {n}|) (do i have|are left|remain|do i have left|have i got|do i still have|are there)( now|)?",
    "(there are|there were|i see|we have|a box holds|a basket has|a tree has) {a} {n} and {b} (leave|go away|are taken away|are eaten|are sold|fall off|fly away|disappear|are removed|get lost). how many( {n}|) (are left|remain|are there now|stay|are still there)?",
    "{name} has {a} {n} and (gives|gave) {b} to {other}. how many( {n}|) (does {name} have|are left|does {name} still have|remain)( left| now|)?",
    "{name} has {a} {n} and (loses|eats|sells|gives away|uses|drops|breaks) {b}( of them|). how many( {n}|) (does {name} have|are left|does {name} still have|remain|does that leave)( left| now|)?",
    "(if|suppose|say|imagine) (i|you|we) have {a} {n} and (lose|eat|sell|give away|use) {b}, how many (do i have left|are left|remain|are there|do we have left)?",
    "{name} has {a} {n}, (and |) {other} has {b}. how many more( {n}|) does {name} have?", "(a bus|a train|a room|a boat|a class) has {a} people( in it|) and {b} (get off|leave|go out|go home). how many( people|) (are left|remain|are still there)( in it|)?",
]
MINUS_WHOLE += [
    "{who} had {a} {unit} and (spent|used|lost|paid|gave away|ate|sold|lent|dropped|broke|drank|wasted|threw away) {b}( {unit}| of them|)(,|.) (how many|how many {unit}|how much) (is left|are left|remain|remains|is that|does that leave|stays|stay)( now| over| in the end|)?",
    "(out of|of|from) {a} {n}, {b} (are|were) (eaten|sold|broken|lost|gone|taken|red|given away|stolen|used). how many (are left|remain|are not|are still there|stay)( over|)?", "a (book|ticket|cake|toy|coat|bike) costs {a} {unit}(,| and) (i have|i pay|i give|we have) {b}( {unit}|)(,|.) (how much is missing|how much more do i need|what is missing|how many {unit} are missing)?",
    "(there were|we had|i saw|a farm had) {a} {n}(,|;| and|.) {b}( of them|) (left|went away|ran away|flew away|fell down|were sold|disappeared|died|sank|broke|got lost|rolled away)(,|.) how many( {n}|) (stayed|remained|are left|were left|are still there|remain)?",
    "(what|how much) (is left|remains|stays|do i have|is over) (of|from) {a} (without|minus|after losing|after taking|when i remove|if i take) {b}?", "{who} is {a} years old. how old was {who} {b} years ago?",
]
TIMES = ["{a}*{b}", "{a} * {b}", "{a}x{b}", "{a} x {b}", "{a} × {b}", "{a}×{b}", "{a} times {b}", "{a} times {b}", "{a} multiplied by {b}", "{a} multiplied with {b}", "the product of {a} and {b}", "product of {a} and {b}", "the product {a} x {b}", "{a} X {b}",
         "multiplying {a} by {b}", "multiplying {a} and {b}", "{a} lots of {b}", "{a} groups of {b}", "{a} sets of {b}"]
TIMES_WHOLE = [
    "multiply {a} (by|with|and|times) {b}", "(can|could|would|will) you (please |) multiply {a} (by|with|and) {b}?", "what (do|would|will) (i|you|we) get (if|when) (i|you|we) multiply {a} (by|with|and) {b}?", "(what is|what's|tell me|find|give me|compute|i need|i want) the product of {a} and {b}",
    "(if i multiply|multiplying|when you multiply) {a} (by|and) {b}, what (do i get|is the result|is it|is the product)?", "(start with|take) {a} and multiply( it|) by {b}", "(in|from) the (times|multiplication) table(s|), what is {a} (times|x) {b}?", "times table: {a} (x|times) {b}",
    "there are {a} (boxes|bags|baskets|rows|shelves|plates|groups|teams|cars|tables|packs) with {b} {n}( each| in each|). how many {n} (are there|is that|do we have)( in total| altogether| in all|)?",
    "i have {a} (boxes|bags|baskets|jars|packs|plates) (with|of|and each has|and each holds) {b} {n}. how many {n} (do i have|are there|is that)( in total| altogether|)?", "{name} (buys|has|fills|packs|carries) {a} (bags|boxes|packs|baskets) of {b} {n}. how many {n} (is that|are there|does {name} have)( in total|)?",
    "(each|every) of {a} (children|friends|people|boxes|bags) has {b} {n}. how many {n} (is that|are there|do they have)( in total| together| altogether|)?", "one (box|bag|pack|ticket) has {b} {n}. how many {n} are in {a}( of them| such boxes|)?",
]
THINGS = "apples pears oranges bananas plums books pencils coins stones marbles balls cookies cakes sweets eggs cards stamps flowers shells toys candles cups hats nuts fish birds chairs buttons leaves berries tickets stickers cherries carrots potatoes pens boxes keys crayons lemons peaches balloons bricks dolls spoons kites".split()
PEOPLE = "Anna Ben Clara David Emma Finn Grace Henry Ida Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tom Vera Will Zoe Lucy Max Nina Oscar Peter Ruth Sara Theo Maria Alice Bob Carol Dan Eve John Jane Mary Tim Jim Sue Amy".split()


def _slots(rng: random.Random) -> dict[str, str]:
    name, other = rng.sample(PEOPLE, 2)
    n, m = rng.sample(THINGS, 2)
    unit = rng.choice(["euros", "dollars", "pounds", "cents", "coins", "pages", "kilometres", "miles", "points", "metres", n])
    who = rng.choice([name, name, "I", "my sister", "a boy", "my father", "she", "he", "we", "the cook", "a dog", "the teacher", "my friend"])
    return {"name": name, "other": other, "n": n, "m": m, "unit": unit, "who": who}


def _pick(rng: random.Random, op: str) -> tuple[int, int]:
    if op == "x":
        a, b = rng.randint(0, 12), rng.randint(0, 12)
        return (a, b) if a > 1 and b > 1 or rng.random() < 0.4 else (rng.randint(2, 12), rng.randint(2, 12))
    a, b = rng.randint(0, 99), rng.randint(0, 99)
    if rng.random() < 0.25:
        a, b = rng.randint(0, 20), rng.randint(0, 20)
    if op == "-" and a < b and rng.random() < 0.75:
        a, b = b, a
    return a, b


def equation(a: int, b: int, op: str) -> str:
    """The answer to one sum: `7 + 5 = 12.`"""
    value = a + b if op == "+" else a - b if op == "-" else a * b
    return f"{a} {op} {b} = {value}."


def question(rng: random.Random, a: int, b: int, op: str) -> str:
    """One wording of a sum, difference or product."""
    short, whole = {"+": (PLUS, PLUS_WHOLE), "-": (MINUS, MINUS_WHOLE), "x": (TIMES, TIMES_WHOLE)}[op]
    chance = 0.3 if rng.random() < 0.45 else 0.0
    slots = {"a": spell(a, rng, 2 * chance), "b": spell(b, rng, 2 * chance)}
    if rng.random() < 0.6 or (op == "-" and a < b):
        text = say(rng, short, **slots)
        if chance and rng.random() < 0.5:
            text = say(rng, short[3:], **slots)
        return say(rng, ASK, e=text)
    return say(rng, whole, **slots, **_slots(rng))


def arithmetic(rng: random.Random) -> Turns:
    """One sum, sometimes followed by a chain of follow-ups on its result."""
    op = rng.choice("+++---xx")
    a, b = _pick(rng, op)
    turns = [(question(rng, a, b, op), equation(a, b, op))]
    value = a + b if op == "+" else a - b if op == "-" else a * b
    while rng.random() < 0.3 and 0 <= value <= 99:
        op = rng.choice("++-x" if value <= 12 else "++-")
        b = rng.randint(0, 12) if op == "x" else rng.randint(0, value) if op == "-" and rng.random() < 0.9 else rng.randint(0, 30 if rng.random() < 0.6 else 99)
        turns.append((follow_up(rng, b, op), equation(value, b, op)))
        value = value + b if op == "+" else value - b if op == "-" else value * b
    if rng.random() < 0.06 and len(turns) == 1 and op != "x":
        turns.append((say(rng, ["(are you sure|is that right|is that correct|really|sure)?", "(please check|check that again|check it again|can you check that|double check)"]), f"Yes, {turns[0][1]}"))
    return turns


FOLLOW = {
    "+": ["(and |now |then |ok, |okay, now |) (plus|add) {b}( more| to that| to it| to this| to the result|)", "(what|and what) (is|about|if) (that|it|this|the result) plus {b}?", "(and|now|then) (with|if you add|if i add|adding) {b}( more|)?", "+ {b}", "+{b}", "and {b} more?",
          "(increase|raise) (it|that|this|the result) by {b}", "(now|and now|then|next) {b} more", "(add|put) {b} (on top|to the last answer|to that answer|to that number|more)( please|)", "(what|how much) (is it|do i get|is that|will it be) (if i add|with|after adding) {b}( more|)?", "and plus {b}?", "and {b} added?", "plus {b}?"],
    "-": ["(and |now |then |ok, |okay, now |) (minus|subtract|take away) {b}( from that| from it| from this| from the result|)", "(what|and what) (is|about|if) (that|it|this|the result) minus {b}?", "(and|now|then) (without|if you subtract|if i take away|less|taking away) {b}?", "- {b}", "-{b}", "and {b} less?",
          "(decrease|reduce|lower) (it|that|this|the result) by {b}", "(now|and now|then|next) {b} less", "(take|subtract|remove) {b} (from the last answer|from that answer|from that number|off|away)( please|)", "(what|how much) (is it|is left|is that|remains) (if i subtract|without|after taking away|if i take away) {b}?", "and minus {b}?", "minus {b}?"],
    "x": ["(and |now |then |ok, |okay, now |) (times|multiply by|multiply that by|multiply it by|multiplied by) {b}", "(what|and what) (is|about|if) (that|it|this|the result) times {b}?", "x {b}", "* {b}", "times {b}?", "and times {b}?", "now multiply (the result|that|this) (by|with) {b}"],
}


def follow_up(rng: random.Random, b: int, op: str) -> str:
    """`and plus 5?` and its like."""
    return say(rng, FOLLOW[op], b=spell(b, rng, 0.2))


COUNT_UP = [
    "(count|please count|count up|can you count|could you count|now count|count for me|let's count|try to count|count out loud|start counting) from {a} (to|up to|until|till|through) {b}",
    "(count|count up) ({a} to {b}|{a} - {b}|{a} through {b})", "(list|name|give me|write|show|say|tell me|print|write down|enumerate) (the|all the|all|) numbers (from|between) {a} (to|and|up to|through) {b}", "(what are|which are) the numbers from {a} (to|up to) {b}?",
    "numbers {a} to {b}", "numbers from {a} to {b}( please|)", "(go|counting) from {a} to {b}", "from {a} to {b}, (count|please count|count up|list the numbers)", "start (at|from|with) {a} and count (up |) to {b}", "i want you to count from {a} to {b}", "(begin|start) (with|at) {a} and (go on|continue|count on) (to|until|up to) {b}",
]
COUNT_ONE = ["(count|please count|can you count|could you count|count up|now count|count for me|let's count|can you please count|i want you to count|try counting|show me that you can count) (to|up to|until|till) {b}", "count (all the way|) (to|up to) {b}( please| for me|)", "(list|say|write|name) the (first {b} numbers|numbers up to {b})"]
COUNT_DOWN = [
    "(count|please count|can you count|now count|count for me|could you count) (down|backwards|backward|back|in reverse|downwards) from {b} (to|down to|until|till) {a}", "(count|count down) from {b} (down |) to {a}", "(count|counting) (from |) {b} to {a}", "countdown from {b} to {a}", "(list|give me|write|say) the numbers from {b} (down to|back to|down until) {a}",
    "start (at|with|from) {b} and count (down|back|backwards) to {a}", "from {b} (down|back) to {a}, (count|please count)",
]
DOWN_ONE = ["(count|please count|can you count|now count|could you count|let's count) (down|backwards|backward|back|in reverse|downwards) from {b}", "(countdown|count down|a countdown) from {b}( please|)", "(do|start|give me|make) a countdown from {b}"]
STEP = {2: ["by twos", "by 2", "by two", "in twos", "in steps of 2", "in steps of two", "by 2s", "in 2s", "every second number", "two at a time"], 5: ["by fives", "by 5", "by five", "in fives", "in steps of 5", "in steps of five", "by 5s", "in 5s"], 10: ["by tens", "by 10", "by ten", "in tens", "in steps of 10", "in steps of ten", "by 10s", "in 10s"], 3: ["by threes", "by 3", "in threes", "in steps of 3", "by three"]}
COUNT_STEP = ["(count|please count|can you count|now count|could you count) (from {a} (to|up to) {b} {s}|{s} from {a} (to|up to) {b})", "(list|say|write|give me) the numbers from {a} to {b} {s}", "{s}, count from {a} to {b}", "start at {a} and count {s} (to|up to|until) {b}"]
STEP_ONE = ["(count|please count|can you count|now count|could you count) ((to|up to) {b} {s}|{s} (to|up to|until) {b})"]


def _list(values: range) -> str:
    return ", ".join(str(v) for v in values) + "."


def counting(rng: random.Random) -> Turns:
    """Count up, down or in steps; at most 25 numbers."""
    kind = rng.random()
    size = rng.randint(3, 12) if rng.random() < 0.7 else rng.randint(10, 25)
    chance = 0.25
    if kind < 0.3:
        a = rng.randint(0, 30) if rng.random() < 0.7 else rng.randint(0, 80)
        b = min(a + size - 1, 100)
        turns = [(say(rng, COUNT_UP, a=spell(a, rng, chance), b=spell(min(b, 99), rng, chance)), _list(range(a, min(b, 99) + 1)))]
        b = min(b, 99)
        if rng.random() < 0.2 and b < 90:
            turns.append((say(rng, ["(continue|keep going|go on|keep counting|and then|and after that|carry on|more|more please|further|what comes next|go on counting)( please|)"]), _list(range(b + 1, b + 6))))
        return turns
    if kind < 0.5:
        b = rng.randint(3, 20)
        turns = [(say(rng, COUNT_ONE, b=spell(b, rng, chance)), _list(range(1, b + 1)))]
        if rng.random() < 0.3:
            turns.append((say(rng, ["(and |now |) (backwards|back|backward|in reverse|the other way round|the other way|down again|back down)( please|?|)", "now count (back|backwards|down)( again|)"]), _list(range(b, 0, -1))))
        return turns
    if kind < 0.68:
        a = rng.randint(0, 20) if rng.random() < 0.7 else rng.randint(0, 80)
        b = min(a + size - 1, 99)
        return [(say(rng, COUNT_DOWN, a=spell(a, rng, chance), b=spell(b, rng, chance)), _list(range(b, a - 1, -1)))]
    if kind < 0.8:
        b = rng.randint(3, 20)
        return [(say(rng, DOWN_ONE, b=spell(b, rng, chance)), _list(range(b, 0, -1)))]
    step = rng.choice([2, 2, 2, 5, 5, 10, 10, 3])
    phrase = rng.choice(STEP[step])
    if rng.random() < 0.5:
        count = rng.randint(3, 10)
        return [(say(rng, STEP_ONE, b=spell(step * count, rng, chance) if step * count < 100 else step * count, s=phrase), _list(range(step, step * count + 1, step)))]
    a = rng.choice([0, 1, step, step, 2 * step, 10, 20, rng.randint(0, 30)])
    b = a + step * rng.randint(2, 7)
    return [(say(rng, COUNT_STEP, a=a, b=b, s=phrase), _list(range(a, b + 1, step)))]


def number_facts(rng: random.Random) -> Turns:
    """Neighbours, even and odd, the bigger one, doubles and halves, digits and words, and what is out of reach."""
    n = rng.randint(1, 98)
    s = spell(n, rng, 0.2)
    kind = rng.randrange(9)
    if kind == 0:
        return [(say(rng, ["(what|which) number (comes|is|follows) (after|right after|next after|directly after) {n}?", "(what|which number|which) comes (after|next after) {n}?", "(the|what is the|tell me the) (number after|next number after|successor of) {n}", "after {n} comes?", "what is (next|the next number) after {n}?", "the number that follows {n}"], n=s), f"After {n} comes {n + 1}.")]
    if kind == 1:
        return [(say(rng, ["(what|which) number (comes|is) (before|right before|just before|directly before) {n}?", "(what|which number|which) comes before {n}?", "(the|what is the|tell me the) (number before|previous number before|predecessor of) {n}", "before {n} comes?", "the number that precedes {n}"], n=s), f"Before {n} comes {n - 1}.")]
    if kind == 2:
        word = "even" if n % 2 == 0 else "odd"
        return [(say(rng, ["is {n} (even|odd|even or odd|odd or even|an even number|an odd number|an even or an odd number)?", "(tell me|do you know|can you say) (if|whether) {n} is (even or odd|odd or even|even|odd)", "{n}(,|:) (even or odd|odd or even)?"], n=s), f"{n} is {word}.")]
    if kind == 3:
        m = rng.choice([x for x in range(100) if x != n])
        big = rng.random() < 0.6
        ask = "(bigger|larger|greater|more|higher|the bigger number|the larger number|the greater number|the larger one|the bigger one)" if big else "(smaller|less|lower|the smaller number|the lesser|the smaller one|the lower number)"
        answer = f"{max(n, m)} is bigger than {min(n, m)}." if big else f"{min(n, m)} is smaller than {max(n, m)}."
        return [(say(rng, [f"(which|what|which number) is {ask}(,|:) {{n}} or {{m}}?", f"(which|what) is {ask}: {{n}} or {{m}}?", f"{{n}} or {{m}}, (which|which one|what) is {ask}?", f"(which|which one) of {{n}} and {{m}} is {ask}?", ("is {n} (bigger|larger|greater|more) than {m}?" if big else "is {n} (smaller|less) than {m}?"), f"compare {{n}} and {{m}}: which is {ask}?"], n=s, m=m), answer)]
    if kind == 4:
        n = rng.randint(0, 49)
        return [(say(rng, ["(what is|what's|tell me|compute|give me|how much is) (double|twice|the double of|two times) {n}?", "double {n}", "(what is|what's) {n} doubled?"], n=n), f"{n} + {n} = {2 * n}.")]
    if kind == 5:
        n = rng.randint(1, 49)
        return [(say(rng, ["(what is|what's|tell me|compute|give me|how much is) (half of|half|the half of|one half of) {n}?", "halve {n}", "{n} (divided by 2|halved|split in two)"], n=2 * n), f"Half of {2 * n} is {n}.")]
    if kind == 6:
        if rng.random() < 0.5:
            return [(say(rng, ["(write|say|spell|how do you write|how do you spell) {n} (in words|as a word|as words|in letters)", "(what is|what's) {n} in words?", "{n} in words"], n=n), f"{n} in words is {words(n)}.")]
        return [(say(rng, ["(write|say|how do you write) {n} (in digits|as a number|in figures|as digits)", "(what is|what's) {n} in digits?", "{n} in digits"], n=words(n)), f"{words(n).capitalize()} in digits is {n}.")]
    if kind == 7:
        a, b = rng.choice([(rng.randint(100, 9999), rng.randint(0, 999)), (rng.randint(0, 999), rng.randint(100, 99999))])
        return [(say(rng, ASK, e=say(rng, rng.choice([PLUS[:6], MINUS[:5], TIMES[:8]]), a=a, b=b)), "That is too big for me. I add and subtract numbers up to 99 and multiply up to 12 x 12.")]
    a, b = rng.randint(2, 99), rng.randint(2, 12)
    if rng.random() < 0.5:
        return [(say(rng, ASK, e=say(rng, TIMES[:8], a=rng.randint(13, 99), b=rng.randint(13, 99))), "That is too big for me. I add and subtract numbers up to 99 and multiply up to 12 x 12.")]
    return [(say(rng, ASK, e=say(rng, ["{a} / {b}", "{a}/{b}", "{a} divided by {b}", "{a} : {b}", "{a} ÷ {b}", "the square root of {a}", "{b}% of {a}", "{b} percent of {a}", "{a} to the power of {b}"], a=a, b=b)), "I have not learned that. I add and subtract numbers up to 99 and multiply up to 12 x 12.")]
