"""Short stories about a character, in a place, with a thing, as the user asks."""

from __future__ import annotations

import random

from .grammar import a_or_an, capital, say
from .talk import ANOTHER, a_name

Turns = list[tuple[str, str]]

CREATURES = "fox dragon cat dog mouse rabbit bear wolf owl robot princess prince king queen knight wizard witch fairy giant dwarf elf ghost pirate sailor farmer baker teacher doctor painter singer king boy girl child bird duck frog fish whale dolphin horse pony cow pig sheep goat lion tiger elephant monkey giraffe zebra penguin turtle snail spider bee ant butterfly squirrel hedgehog deer donkey hen rooster goose swan crow eagle parrot snake crocodile camel kangaroo panda snowman unicorn mermaid monster alien astronaut computer train car boat tree flower star cloud teddy doll clown cook hunter fisherman shepherd miller tailor soldier gardener postman pilot nurse thief detective grandmother grandfather badger beaver otter seal shark octopus crab worm beetle ladybird moth bat rat hamster kitten puppy lamb calf foal duckling chicken peacock stork raven goblin troll genie vampire mummy scarecrow inventor explorer dancer drummer little-mouse tractor balloon teapot pencil lamp shoe hat kite raindrop snowflake pumpkin potato carrot apple stone".replace(" little-mouse", "").split()
ADJECTIVES = "little small big brave clever kind lazy old young happy sad lonely hungry curious shy funny friendly quiet tired red blue green white black golden grey tiny wise silly gentle proud poor rich lost sleepy strong".split()
PLACES = {
    "in": "the forest; the city; the village; the garden; the mountains; the desert; the castle; the jungle; the river; the lake; the school; the kitchen; the library; the park; the cave; the house; the snow; the rain; the meadow; the tower; the circus; the zoo; the barn; the museum; the market; the sky; space; the woods; the valley; the swamp; the tree house; the palace; the shop; the old mill; the hospital; the station; the attic; the cellar; the field; a small town; a big city; a dark forest; an old castle; Paris; London; Rome; Africa; China; Egypt; the orchard; the harbour".split("; "),
    "on": "the moon; the farm; the beach; the island; the hill; the ship; the mountain; the train; the bridge; the roof; a small island; a star; Mars; the road; the playground; the boat; the ice; the street; a far planet".split("; "),
    "by": "the sea; the river; the lake; the lighthouse; the pond; the window; the fire; the old oak; the waterfall; the gate; the ocean".split("; "),
    "at": "the sea; school; the zoo; home; the market; the beach; the station; the fair; the lake; the north pole; the airport".split("; "),
    "under": "the sea; the tree; the bed; the bridge; the ground; the stars; the table; the water".split("; "),
}
OBJECTS = "key map apple lamp book ball stone coin ring hat box letter flower feather shell bell mirror drum flute boat cake egg seed star sword crown blanket cup candle rope basket treasure bottle button picture kite umbrella clock scarf shoe cookie balloon wheel nut bone crystal".split()
THEMES = {"friendship": "a friend is the best treasure", "courage": "courage grows when you need it", "love": "love makes every home warm", "kindness": "kindness always comes back", "honesty": "the truth is the best way", "sharing": "sharing makes everything taste better", "patience": "good things take time", "winter": "winter is warm with friends", "summer": "summer days are long and sweet", "help": "help makes heavy things light", "a dream": "a dream can show the way", "music": "music opens every heart", "a journey": "every journey leads home", "luck": "luck likes those who try", "a birthday": "the best gift is time together", "the rain": "after the rain comes the sun", "the night": "the night is full of stars", "magic": "a little magic lives in everyone", "treasure": "a friend is the best treasure", "christmas": "giving is better than getting"}

ASK = [
    "(tell|give|write|make up|tell me|give me|write me|read me|invent|tell us|make up for me|compose|create|i want|i would like|i'd like|can i have|could i have|can you tell me|could you tell me|could you write|can you write|can you make up|please tell me|please write|would you tell me|i want to hear|let me hear|let's hear|i would love to hear|do you know|have you got|how about|i need|tell the children|think of) (a|a short|a little|a nice|a small|one|a new|a lovely|a cute|a simple|a quick|a bedtime|a funny|another) (story|story|tale|fairy tale|bedtime story|short story){x}( please|, please|?|.||| for me| for my child)",
    "(story|a story|a short story|short story|tale|bedtime story|a tale){x}( please|, please|!|)",
    "(once upon a time|start a story|begin a story|story time|it is story time|storytime)(:|,|...|){x}",
    "(can|could|would|will) you (please |)(tell|write|make up|invent|give) (me |us |)a (short |little |nice |)(story|tale){x}?",
]
ABOUT = [" (about|of|with|on|featuring|starring|that is about|in which there is|where the hero is|whose hero is|for me about|that has|involving|telling about|concerning) {c}"]
WHERE = [" (who lives|living|that lives|that is|who is|and it happens|that plays|set|which takes place|happening|taking place|lost|||||) {p}"]


def _place(rng: random.Random) -> tuple[str, str]:
    prep = rng.choice(["in", "in", "in", "on", "by", "at", "under"])
    return prep, rng.choice(PLACES[prep])


def _hero(rng: random.Random) -> tuple[str, str, str, str]:
    """(as asked for, as introduced, as named later, pronoun)."""
    dice = rng.random()
    if dice < 0.25:
        name = a_name(rng)
        return name, f"a child called {name}" if rng.random() < 0.5 else name, name, "they"
    noun = rng.choice(CREATURES)
    adjective = rng.choice(ADJECTIVES) if rng.random() < 0.35 else ""
    full = f"{adjective} {noun}".strip()
    if dice < 0.4:
        name = a_name(rng)
        return f"{a_or_an(full)} (called|named) {name}", f"{a_or_an(full)} called {name}", name, "it"
    if dice < 0.5:
        return f"the {full}", a_or_an(full), f"the {noun}", "it"
    return a_or_an(full), a_or_an(full), f"the {noun}", "it"


def write(rng: random.Random, hero: tuple[str, str, str, str], place: tuple[str, str], thing: str, theme: str, friend: str) -> str:
    """About five sentences; the friend is never the hero again."""
    while friend in hero[1]:
        friend = rng.choice(CREATURES[:70])
    _, intro, name, _ = hero
    prep, spot = place
    where = f"{prep} {spot}"
    cap = capital(name)
    other = f"the {friend}"
    out = [say(rng, f"(Once upon a time|Once|Long ago|One day) there was {intro} {where}.") if intro != name else say(rng, f"(Once upon a time|Once|Long ago) {name} lived {where}.")]
    if thing:
        out.append(say(rng, f"(One morning|One day|One evening|In the morning|After the rain) {name} found {a_or_an(thing)} {where}." if rng.random() < 0.5 else f"(One morning|One day|One evening) {name} lost {a_or_an(thing)} and looked for it everywhere."))
    else:
        out.append(say(rng, [f"(One morning|One day|One evening|In spring|In winter) {name} wanted to (see the world|find a friend|learn to sing|find something new|have an adventure|build a house|help somebody).", f"{cap} was (often alone|very curious|a little afraid of the dark|always hungry|never in a hurry) and dreamed of (a friend|a long journey|the stars|a big party|something new)."]))
    out.append(say(rng, f"(Then|Soon|On the way|After a while|There) {name} met {a_or_an(friend)}."))
    out.append(say(rng, [f"\"(I will help you|Come with me|Do not worry|Let us go together|I know the way),\" said {other}.", f"{capital(other)} (was kind and helped|knew the way|laughed and came along|had a good idea).", f"\"(Why are you alone|What are you doing|Where are you going|Can I come with you)?\" asked {other}."]))
    if thing:
        out.append(say(rng, [f"Together they (looked for a long time and found the answer|brought the {thing} home|looked at the {thing} and laughed).", f"They shared the {thing} and (were happy|sang a song|became friends)."]))
    else:
        out.append(say(rng, ["Together they (walked a long way and sang|laughed all day|built a small house|looked at the stars|found the way|danced until night|shared their bread)."]))
    if theme:
        out.append(f"And so {name} learned that {THEMES[theme]}.")
    else:
        out.append(say(rng, [f"(From that day on|Since then|After that) {name} and {other} were (best friends|good friends|friends).", f"(In the evening|At night|At last) {name} (went home happy|fell asleep with a smile|was happy), and {other} too."]))
    if rng.random() < 0.35:
        out.append("The end.")
    return " ".join(out)


def _free(rng: random.Random) -> str:
    return write(rng, _hero(rng), _place(rng), rng.choice(OBJECTS) if rng.random() < 0.3 else "", "", rng.choice(CREATURES[:70]))


def story(rng: random.Random) -> Turns:
    """One story as asked for; sometimes more of them."""
    hero, place, thing, theme = _hero(rng), _place(rng), "", ""
    friend = rng.choice(CREATURES[:70])
    dice = rng.random()
    asked = say(rng, hero[0])
    if dice < 0.12:
        turns = [(say(rng, ASK, x=""), _free(rng))]
    else:
        if dice < 0.45:
            extra = say(rng, ABOUT, c=asked)
        elif dice < 0.7:
            extra = say(rng, ABOUT, c=asked) + " " + say(rng, WHERE, p=" ".join(place))
        elif dice < 0.78:
            thing = rng.choice(OBJECTS)
            extra = say(rng, ABOUT, c=asked) + " " + say(rng, "(and|with|who finds|who has|that finds|who loses|and his|looking for) {t}", t=a_or_an(thing))
        elif dice < 0.84:
            friend = rng.choice(CREATURES)
            extra = say(rng, ABOUT, c=asked) + " " + say(rng, "(and|with|who meets|that meets) {f}", f=a_or_an(friend))
        elif dice < 0.92:
            extra = say(rng, " (that plays|set|that happens|which takes place|from|about life|that is|playing|about someone|about what happens||) {p}", p=" ".join(place))
        else:
            theme = rng.choice(list(THEMES))
            extra = say(rng, " (about|on|on the topic of|that teaches|that shows|dealing with) {t}", t=theme)
        turns = [(say(rng, ASK, x=" " + extra), write(rng, hero, place, thing, theme, friend))]
    while rng.random() < 0.22 and len(turns) < 3:
        if rng.random() < 0.5:
            turns.append((say(rng, ANOTHER), _free(rng)))
        else:
            again = _hero(rng)
            place = _place(rng)
            turns.append((say(rng, ["(and |now |)(one|another one|another|a story|the same|one more) (about|with) {c}( please|, please|)", "(what|how) about {c}?"], c=say(rng, again[0])), write(rng, again, place, "", "", rng.choice(CREATURES[:70]))))
    return turns
