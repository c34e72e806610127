"""The facts of the small world and the many ways to ask for them."""

from __future__ import annotations

import random

from .grammar import a_or_an, capital, say

Turns = list[tuple[str, str]]


def table(text: str) -> dict[str, str]:
    """`key=value; key=value` as a dictionary."""
    return dict(item.strip().split("=", 1) for item in text.replace("\n", " ").split(";") if item.strip())


CAPITALS = table("""France=Paris; Germany=Berlin; Italy=Rome; Spain=Madrid; Portugal=Lisbon; England=London; Scotland=Edinburgh; Ireland=Dublin; Austria=Vienna; Switzerland=Bern;
Belgium=Brussels; the Netherlands=Amsterdam; Denmark=Copenhagen; Norway=Oslo; Sweden=Stockholm; Finland=Helsinki; Iceland=Reykjavik; Poland=Warsaw; Hungary=Budapest; Greece=Athens;
Turkey=Ankara; Russia=Moscow; Ukraine=Kyiv; Romania=Bucharest; Bulgaria=Sofia; Serbia=Belgrade; Croatia=Zagreb; the Czech Republic=Prague; Slovakia=Bratislava; Slovenia=Ljubljana;
Estonia=Tallinn; Latvia=Riga; Lithuania=Vilnius; Luxembourg=Luxembourg; Malta=Valletta; Cyprus=Nicosia; Albania=Tirana; Egypt=Cairo; Morocco=Rabat; Kenya=Nairobi; Ethiopia=Addis Ababa; Ghana=Accra; Nigeria=Abuja; Tunisia=Tunis;
Senegal=Dakar; China=Beijing; Japan=Tokyo; India=New Delhi; South Korea=Seoul; Thailand=Bangkok; Vietnam=Hanoi; Indonesia=Jakarta; the Philippines=Manila; Nepal=Kathmandu; Iran=Tehran; Iraq=Baghdad; Israel=Jerusalem; Mongolia=Ulaanbaatar; Malaysia=Kuala Lumpur; Pakistan=Islamabad;
Canada=Ottawa; the United States=Washington; the USA=Washington; the United Kingdom=London; Mexico=Mexico City; Cuba=Havana; Brazil=Brasilia; Argentina=Buenos Aires; Chile=Santiago; Peru=Lima; Colombia=Bogota; Uruguay=Montevideo; Venezuela=Caracas; Ecuador=Quito; Bolivia=Sucre; Australia=Canberra; New Zealand=Wellington""")
CONTINENTS = {
    "Europe": "France Germany Italy Spain Portugal England Scotland Ireland Austria Switzerland Belgium Denmark Norway Sweden Finland Iceland Poland Hungary Greece Ukraine Romania Bulgaria Serbia Croatia Slovakia Slovenia Estonia Latvia Lithuania Luxembourg Malta Albania".split(),
    "Africa": "Egypt Morocco Kenya Ethiopia Ghana Nigeria Tunisia Senegal".split(),
    "Asia": "China Japan India Thailand Vietnam Indonesia Nepal Iran Iraq Israel Mongolia Malaysia Pakistan".split(),
    "North America": "Canada Mexico Cuba".split(),
    "South America": "Brazil Argentina Chile Peru Colombia Uruguay Venezuela Ecuador Bolivia".split(),
}
SOUNDS = table("""cow=moo; dog=woof; cat=meow; sheep=baa; pig=oink; duck=quack; horse=neigh; lion=roar; wolf=howl; frog=ribbit; bee=buzz; snake=hiss; mouse=squeak; rooster=cock-a-doodle-doo; hen=cluck; chick=cheep; owl=hoot;
donkey=hee-haw; goat=bleat; bird=tweet; crow=caw; elephant=trumpet; bear=growl; cricket=chirp; turkey=gobble; pigeon=coo; goose=honk; monkey=ooh-ooh; tiger=roar; parrot=squawk""")
LEGS = table("""cow=4; dog=4; cat=4; sheep=4; pig=4; duck=2; horse=4; lion=4; wolf=4; frog=4; bee=6; snake=0; mouse=4; rooster=2; hen=2; owl=2; donkey=4; goat=4; bird=2; crow=2; elephant=4; bear=4; tiger=4; rabbit=4; fox=4; spider=8; ant=6;
beetle=6; butterfly=6; fly=6; mosquito=6; fish=0; chicken=2; goose=2; penguin=2; giraffe=4; zebra=4; camel=4; deer=4; squirrel=4; turtle=4; crocodile=4; octopus=8; worm=0; snail=0; whale=0; shark=0; dolphin=0; ostrich=2; parrot=2; human=2; kangaroo=2; scorpion=8; ladybird=6; lizard=4; eagle=2; swan=2""")
BABIES = table("""cow=calf; dog=puppy; cat=kitten; sheep=lamb; pig=piglet; duck=duckling; horse=foal; lion=cub; bear=cub; hen=chick; goat=kid; frog=tadpole; deer=fawn; goose=gosling; kangaroo=joey; elephant=calf; wolf=pup; tiger=cub; swan=cygnet; fox=cub; rabbit=kit; owl=owlet; butterfly=caterpillar""")
HOMES = table("""bee=a hive; bird=a nest; dog=a kennel; horse=a stable; spider=a web; rabbit=a burrow; bear=a den; fish=the water; ant=an anthill; cow=a barn; pig=a sty; lion=the savanna; penguin=the cold south; camel=the desert; shark=the sea; whale=the sea; fox=a den; owl=a tree; squirrel=a tree; mole=the ground; frog=a pond; hen=a coop; monkey=the jungle; polar bear=the cold north""")
EATS = table("""cow=grass; rabbit=carrots; cat=mice; dog=meat; horse=hay; panda=bamboo; monkey=bananas; squirrel=nuts; lion=meat; bee=nectar; sheep=grass; goat=grass; frog=flies; koala=eucalyptus leaves; mouse=cheese; bird=seeds; spider=flies; owl=mice; giraffe=leaves; caterpillar=leaves; fox=mice; wolf=meat; penguin=fish; seal=fish; bear=berries""")
OPPOSITES_HALF = table("""hot=cold; big=small; tall=short; fast=slow; up=down; left=right; day=night; black=white; happy=sad; good=bad; old=young; new=used; rich=poor; strong=weak; hard=soft; light=dark; full=empty; open=closed; wet=dry; clean=dirty;
early=late; high=low; loud=quiet; long=brief; near=far; in=out; on=off; over=under; first=last; true=false; yes=no; always=never; begin=end; start=stop; push=pull; give=take; buy=sell; win=lose; love=hate; laugh=cry; remember=forget;
ask=answer; come=go; thick=thin; wide=narrow; deep=shallow; sweet=sour; heavy=weightless; easy=difficult; cheap=expensive; smooth=rough; sharp=blunt; brave=afraid; kind=cruel; polite=rude; safe=dangerous; right side=left side; north=south; east=west; summer=winter; morning=evening; friend=enemy; war=peace; life=death; inside=outside; above=below; before=after; more=less; many=few; everything=nothing; everybody=nobody; warm=cool; alive=dead; asleep=awake; beautiful=ugly; clever=stupid; lazy=hard-working; noisy=silent; male=female; man=woman; boy=girl; king=queen; brother=sister; mother=father; top=bottom; front=back; arrive=leave; arrival=departure; entrance=exit; success=failure; question=reply; lost=found; tight=loose; straight=crooked; raise=lower; fall=rise; sunrise=sunset; wrong=correct; simple=complicated; small=large; little=big; large=small; short=long; cold=hot; tiny=huge; huge=tiny; glad=unhappy; odd=even; plus=minus; positive=negative; heaven=hell; solid=liquid; float=sink; borrow=lend; teach=learn; accept=refuse; appear=disappear; possible=impossible; patient=impatient; honest=dishonest; visible=invisible; lucky=unlucky; public=private; maximum=minimum; ancient=modern; guilty=innocent""")
OPPOSITES = {**{b: a for a, b in OPPOSITES_HALF.items()}, **OPPOSITES_HALF}
OPPOSITES |= {"heavy": "light", "light": "dark", "long": "short", "short": "long", "small": "big", "big": "small", "large": "small", "cold": "hot", "difficult": "easy", "hot": "cold", "right": "left", "old": "young", "young": "old", "new": "old", "bright": "dark", "dark": "light", "shut": "open", "finish": "start", "hard": "soft", "quiet": "loud", "closed": "open"}
COLOURS = table("""the sky=blue; grass=green; snow=white; blood=red; the sun=yellow; a banana=yellow; a lemon=yellow; coal=black; milk=white; an orange=orange; a carrot=orange; chocolate=brown; a tomato=red; a strawberry=red; a cherry=red; a frog=green; a leaf=green; an elephant=grey; the night=black; the sea=blue; a flamingo=pink; a pig=pink;
an aubergine=purple; lavender=purple; a cucumber=green; a crow=black; a polar bear=white; a swan=white; a fire engine=red; gold=yellow; silver=grey; a pumpkin=orange; wood=brown; rice=white; salt=white; sugar=white; a pea=green; broccoli=green; an emerald=green; a ruby=red; a sapphire=blue; a fox=red; a sunflower=yellow; a plum=purple; coffee=brown; a blueberry=blue; spinach=green; a mouse=grey; cheese=yellow; a bear=brown; paper=white; a raven=black; a stop sign=red; corn=yellow; a cloud=white; ice=white""")
MIXES = table("blue and yellow=green; red and yellow=orange; red and blue=purple; black and white=grey; red and white=pink")
SIDES = table("triangle=3; square=4; rectangle=4; pentagon=5; hexagon=6; heptagon=7; octagon=8; nonagon=9; decagon=10; circle=0; diamond=4; rhombus=4; trapezium=4")
SOLIDS = table("cube=6; pyramid=5; cuboid=6; sphere=1")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
LENGTHS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
SEASONS = "spring summer autumn winter".split()
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
UNITS = table("""seconds in a minute=60; minutes in an hour=60; hours in a day=24; days in a week=7; days in a year=365; months in a year=12; weeks in a year=52; seasons in a year=4; letters in the alphabet=26; vowels in the alphabet=5; planets in the solar system=8; colours in a rainbow=7; fingers on a hand=5; toes on a foot=5; eyes on a face=2; wheels on a car=4;
wheels on a bicycle=2; strings on a violin=4; strings on a guitar=6; players in a football team=11; centimetres in a metre=100; metres in a kilometre=1000; grams in a kilogram=1000; years in a century=100; years in a decade=10; sides on a dice=6; cents in a dollar=100; keys on a piano=88; squares on a chessboard=64; things in a dozen=12; things in a pair=2; arms on an octopus=8; continents on Earth=7; oceans on Earth=5; noses on a face=1; ears on a head=2; legs on a chair=4; hearts in a human=1; fingers on two hands=10; wings on a bird=2; corners in a square=4; corners in a triangle=3; days in a weekend=2; hands on a clock=2; bits in a byte=8; wheels on a tricycle=3; cards in a deck=52; days in a leap year=366; minutes in half an hour=30; hours in two days=48; days in two weeks=14""")
PLURALS = table("""mouse=mice; child=children; foot=feet; tooth=teeth; goose=geese; man=men; woman=women; sheep=sheep; fish=fish; person=people; leaf=leaves; knife=knives; wolf=wolves; ox=oxen; cat=cats; dog=dogs; box=boxes; city=cities; baby=babies; bus=buses; house=houses; apple=apples; potato=potatoes; tomato=tomatoes; life=lives; half=halves; cherry=cherries; lady=ladies; book=books; tree=trees; star=stars; car=cars""")
PASTS = table("""go=went; see=saw; eat=ate; run=ran; come=came; give=gave; take=took; make=made; say=said; think=thought; buy=bought; sing=sang; swim=swam; write=wrote; read=read; sleep=slept; fly=flew; drink=drank; find=found; know=knew; speak=spoke; break=broke; bring=brought; begin=began; fall=fell; play=played; walk=walked; jump=jumped; ask=asked; work=worked; have=had; do=did; is=was; are=were; sit=sat; stand=stood; tell=told; win=won; lose=lost; sell=sold; teach=taught; catch=caught""")
KINDS = {
    "fruit": "apple banana pear cherry lemon plum grape strawberry orange peach mango melon pineapple kiwi raspberry apricot".split(),
    "vegetable": "carrot potato onion cabbage spinach pea bean cucumber broccoli leek cauliflower radish lettuce turnip".split(),
    "animal": "cow dog cat sheep pig horse lion wolf frog mouse goat elephant bear tiger rabbit fox giraffe zebra camel deer".split(),
    "bird": "owl crow duck goose pigeon parrot eagle penguin swan robin sparrow stork".split(),
    "insect": "bee ant fly beetle butterfly mosquito cricket wasp grasshopper".split(),
    "colour": "red blue green yellow white black orange purple pink brown grey".split(),
    "tool": "hammer saw screwdriver drill axe wrench pliers".split(),
    "vehicle": "car bus train bicycle truck tram motorcycle boat".split(),
    "instrument": "piano violin guitar flute drum trumpet cello harp".split(),
    "drink": "water milk tea coffee juice lemonade cocoa".split(),
    "flower": "rose tulip daisy lily sunflower violet orchid".split(),
    "tree": "oak pine birch willow maple beech fir".split(),
    "sport": "football tennis swimming running chess basketball volleyball hockey".split(),
    "planet": PLANETS, "shape": "circle square triangle rectangle pentagon hexagon octagon".split(), "day": DAYS, "month": MONTHS, "season": SEASONS,
    "country": "France Germany Italy Spain Poland Greece Egypt Japan India Canada Brazil Mexico Kenya Norway".split(), "metal": "iron gold silver copper lead tin zinc".split(),
}
MISC = [
    ("(what is|what's|which is|tell me|name|which planet is|what planet is) the (largest|biggest) (planet|planet in the solar system|planet of all|planet of our solar system|one of the planets)?|(which|what) planet is (the|) (largest|biggest|the biggest of all)?|biggest planet", "The largest planet is Jupiter."),
    ("(what is|what's|which is|tell me|name|which planet is|what planet is) the smallest (planet|planet in the solar system|planet of all|of the planets)?|(which|what) planet is (the|) smallest?|smallest planet", "The smallest planet is Mercury."),
    ("(which|what) planet is (the|) (closest|nearest) to the sun?|(what is|name|tell me|which is) the (closest|nearest) planet to the sun|planet (nearest|closest) to the sun|(which|what) planet (lies|goes round) (nearest|closest) to the sun?", "Mercury is the planet closest to the sun."),
    ("(which|what) planet is (the|) (farthest|furthest|most distant) from the sun?|(what is|name|tell me|which is) the (farthest|furthest|most distant|last|outermost) planet( from the sun|)", "Neptune is the planet farthest from the sun."),
    ("(which|what) planet is (red|the red one|the red planet|called the red planet|known as the red planet)?|(what is|name|tell me|which one is) the red planet|the red planet is called?", "Mars is the red planet."),
    ("(which|what) planet (has|is known for|is famous for|has the famous|has big|carries) rings?|(which|what) planet has (bright|beautiful|the most|large) rings|the planet with( the|) rings", "Saturn is the planet with the rings."),
    ("(which|what) planet do (we|you|people|humans|i) live on?|(on which|on what) planet do (we|people|humans) live?|(what is|name|tell me) (our planet|our home planet|the planet we live on)|where do people live in (space|the solar system)", "We live on the planet Earth."),
    ("(which|what) planet is (the|) hottest?|(what is|name) the hottest planet", "Venus is the hottest planet."),
    ("(what|which) (star|is the star|star is) (do we see by day|at the centre of the solar system|in the middle of the solar system|closest to us|closest to earth|nearest to us)?|what is the sun?|is the sun a (star|planet)?|what kind of thing is the sun", "The sun is a star."),
    ("(what|tell me what) (moves|goes|turns|travels|circles|orbits) (around|round) the earth?|what is the moon?|(what|which body|who) (circles|orbits) our planet", "The moon goes around the Earth."),
    ("(what|how) does the earth (go|move|turn|travel|circle|orbit) (around|round)?|what does the earth (circle|orbit)|(around what|what) do the planets (go around|circle|orbit|move around)", "The Earth and the other planets go around the sun."),
    ("(name|list|tell me|what are|give me|which are|can you name|can you list|say) (all |all of |)the (planets|eight planets|8 planets|planets of the solar system|planets in the solar system|planets in order)", "The planets are Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune."),
    ("(name|list|tell me|what are|give me|which are|can you name|can you list|say|recite) (all |all of |)the (days|days of the week|seven days|7 days|weekdays in order|days in a week|week days)", "The days are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday."),
    ("(name|list|tell me|what are|give me|which are|can you name|can you list|say|recite) (all |all of |)the (months|months of the year|twelve months|12 months|months in order|months in a year)", "The months are January, February, March, April, May, June, July, August, September, October, November and December."),
    ("(name|list|tell me|what are|give me|which are|can you name|can you list|say) (all |all of |)the (seasons|four seasons|4 seasons|seasons of the year|seasons in order|seasons in a year)", "The seasons are spring, summer, autumn and winter."),
    ("(name|list|tell me|what are|give me|which are|can you name|can you list|say) (all |all of |)the (vowels|vowels of the alphabet|five vowels|vowels in english|vowels in the alphabet)", "The vowels are A, E, I, O and U."),
    ("(name|list|tell me|what are|give me|which are|can you name|can you list|say) (all |all of |)the (colours|colors) (of the rainbow|in the rainbow|in a rainbow|a rainbow has|of a rainbow)|(which|what) (colours|colors) (has a rainbow|does a rainbow have|are in a rainbow|are in the rainbow)", "The colours of the rainbow are red, orange, yellow, green, blue, indigo and violet."),
    ("(name|list|tell me|what are|give me|which are|can you name|say) (all |all of |)the (continents|seven continents|7 continents|continents of the world|continents of the earth)", "The continents are Africa, Antarctica, Asia, Australia, Europe, North America and South America."),
    ("(name|list|tell me|what are|give me|which are|can you name|say) (all |all of |)the (oceans|five oceans|5 oceans|oceans of the world|world's oceans)", "The oceans are the Atlantic, the Pacific, the Indian, the Arctic and the Southern Ocean."),
    ("(name|list|tell me|what are|give me|which are|can you name|say) (all |all of |)the (primary colours|primary colors|three primary colours|basic colours)", "The primary colours are red, yellow and blue."),
    ("(name|list|tell me|what are|give me|which are|can you name|say) (all |all of |)the (five senses|senses|5 senses|human senses)", "The five senses are sight, hearing, smell, taste and touch."),
    ("(name|list|tell me|what are|give me|which are|can you name|say) (all |all of |)the (four directions|directions|directions of the compass|compass directions|cardinal directions|four winds|points of the compass)", "The four directions are north, east, south and west."),
    ("(say|recite|tell me|write|give me|list|show me|sing|do you know|can you say|what is) (the alphabet|the abc|all letters|all the letters|all letters of the alphabet|your abc|the letters of the alphabet)", "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z."),
    ("(which|what) days (are|make|make up|belong to|are in) the weekend?|(what are|name|tell me|list) the (weekend days|days of the weekend)|when is the weekend?|(what|which) days are (not working days|weekend days)", "The weekend is Saturday and Sunday."),
    ("(what|which) (is|day is) the first day of the week?|(which|what) day (starts|begins) the week?|(the week|a week) (starts|begins) (on|with) (which day|what day)|on (which|what) day does (the|a) week (start|begin)?|name the first day of the week|first day of the week", "The first day of the week is Monday."),
    ("(what|which) (is|day is) the last day of the week?|(which|what) day (ends|finishes) the week?|on (which|what) day does (the|a) week end?|name the last day of the week|last day of the week", "The last day of the week is Sunday."),
    ("(what|which) (is|month is) the first month( of the year|)?|(which|what) month (starts|begins) the year?|(in|with) (which|what) month does the year (start|begin)?|first month of the year", "The first month of the year is January."),
    ("(what|which) (is|month is) the last month( of the year|)?|(which|what) month (ends|finishes) the year?|(in|with) (which|what) month does the year end?|last month of the year", "The last month of the year is December."),
    ("(what|which) (is|month is) the shortest month( of the year|)?|(which|what) month (has the fewest days|has 28 days|is the shortest|is shortest)?|shortest month", "The shortest month is February."),
    ("(what|which) (season|is the season that|season of the year) is (the|) (coldest|cold)?|(in|during|) (which|what) season (does it snow|is it cold|do we see snow|is it coldest|does snow fall)?|(when|in which season) (is it cold|does it snow)|coldest season", "Winter is the coldest season."),
    ("(what|which) (season|season of the year) is (the|) (hottest|warmest|hot|warm)?|(in|during|) (which|what) season (is it hot|is it hottest|is it warmest|do we swim in the lake)?|when is it hot|hottest season|(what|which) is the (hottest|warmest) season", "Summer is the hottest season."),
    ("(in|during|) (which|what) season do (leaves|the leaves) fall( from the trees|)?|(when|what time of year) do (the |)leaves fall|(what|which) season has falling leaves", "The leaves fall in autumn."),
    ("(in|during|) (which|what) season do (flowers|the flowers) (bloom|start to grow|come out)?|when do (the |)flowers bloom|(what|which) season has (new flowers|blossoms)", "The flowers bloom in spring."),
    ("(what|which) (is|animal is) the (largest|biggest) animal( in the world| of all| on earth|)?|(which|what) animal is (the|) (biggest|largest)( of all| in the world|)?|biggest animal|largest animal on earth", "The largest animal is the blue whale."),
    ("(what|which) (is|animal is) the (fastest) (animal|land animal)( in the world| of all| on earth|)?|(which|what) animal (is the fastest|runs fastest|runs the fastest|is fastest)?|fastest animal", "The fastest land animal is the cheetah."),
    ("(what|which) (is|animal is) the tallest animal( in the world| of all| on earth|)?|(which|what) animal (is the tallest|is tallest|has the longest neck|has a long neck|has a very long neck)?|tallest animal", "The tallest animal is the giraffe."),
    ("(what|which) animal (has a trunk|has a long nose|has tusks and a trunk)?|animal with a trunk|who has a trunk", "The elephant has a trunk."),
    ("(what|which) animal (has|wears) (stripes|black and white stripes)?|animal with stripes|which animal is striped", "The zebra has black and white stripes."),
    ("(what|which) animal is (called |)the king of (the |)(animals|jungle|beasts)?|who is the king of (the |)(animals|jungle|beasts)?|king of the (jungle|animals)", "The lion is called the king of the animals."),
    ("(what|which) animal is (called |)man's best friend?|who is man's best friend|the best friend of man", "The dog is called man's best friend."),
    ("(what|who|which animal|which insect) (makes|produces|gives us) honey?|where does honey come from|honey is made by", "Bees make honey."),
    ("(what|who|which animal) (gives us|gives|makes|produces) (milk)?|where does milk come from|milk comes from", "Cows give us milk."),
    ("(what|who|which animal|which bird) (lays eggs|gives us eggs|lays the eggs we eat)?|where do eggs come from", "Hens lay eggs."),
    ("(what|which animal|who|which animals) gives( us|) wool?|where does wool come from|wool comes from", "Sheep give us wool."),
    ("(at|on) (what|which) temperature does water (boil|start to boil)?|when does water boil|(what is|tell me) the boiling point of water|how hot is boiling water", "Water boils at 100 degrees Celsius."),
    ("(at|on) (what|which) temperature does water (freeze|turn to ice|become ice)?|when does water freeze|(what is|tell me) the freezing point of water|how cold is ice", "Water freezes at 0 degrees Celsius."),
    ("what is ice( made of|)?|(what|tell me what) is frozen water( called|)?|what does water become when it freezes", "Ice is frozen water."),
    ("(where|in which direction|from where|in what direction) does the sun (rise|come up)?|the sun rises in the", "The sun rises in the east."),
    ("(where|in which direction|in what direction) does the sun (set|go down)?|the sun sets in the", "The sun sets in the west."),
    ("what do (bees|flowers|plants|trees) need to (grow|live)?|what does a plant need( to grow| to live|)?|how does a plant grow", "A plant needs water, light and soil."),
    ("(what|which) (is|colour is) the colour (of|between) (a traffic light|the traffic light) (for|that means) (stop|stopping)?|(which|what) (light|traffic light|colour|color) means stop?|when do i stop at a traffic light", "Red means stop."),
    ("(which|what) (light|traffic light|colour|color) means go?|when do i go at a traffic light|(what|which) colour of the traffic light (lets me|lets us|says) go", "Green means go."),
    ("(what|which) is the (largest|biggest) ocean( in the world| on earth|)?|(which|what) ocean is (the|) (biggest|largest)?|biggest ocean", "The largest ocean is the Pacific."),
    ("(what|which) is the (largest|biggest) continent( in the world| on earth|)?|(which|what) continent is (the|) (biggest|largest)?|biggest continent", "The largest continent is Asia."),
    ("(what|which) is the (highest|tallest) mountain( in the world| on earth|)?|(which|what) mountain is (the|) (highest|tallest)?|(highest|tallest) mountain", "The highest mountain is Mount Everest."),
    ("(what|which) is the (largest|biggest) country( in the world| on earth|)?|(which|what) country is (the|) (biggest|largest)?|biggest country", "The largest country is Russia."),
    ("what (do we|do people|do you) use (to see|for seeing)?|(with what|what) do (we|people) see( with|)?|which part of the body sees", "We see with our eyes."),
    ("what (do we|do people|do you) use (to hear|for hearing)?|(with what|what) do (we|people) hear( with|)?|which part of the body hears", "We hear with our ears."),
    ("what (do we|do people|do you) use (to smell|for smelling)?|(with what|what) do (we|people) smell( with|)?|which part of the body smells", "We smell with our nose."),
    ("(which|what) (day|holiday) is on (december 25|the 25th of december)?|when is christmas( day|)?|on (what|which) day is christmas", "Christmas is on 25 December."),
    ("when is (new year|new year's day)?|on (what|which) day (does the new year start|is new year)", "New Year is on 1 January."),
]


CAPITAL_ASK = [
    "(what is|what's|whats|which is|name|tell me|give me|do you know|can you tell me|say|can you name|could you tell me|i need|i want to know|please name|what's called) the (capital|capital city) (of|for|in) {c}?", "(which|what) city is the capital (of|in) {c}?", "(what|which) is {s} capital( city|)?",
    "{c}(:|,|) (capital|capital city|what is its capital|its capital|what is the capital)?", "{s} capital( city|)( is|)?", "the capital (of|city of) {c}( is|)", "capital of {c}", "(which|what) city (is|serves as|acts as) {s} capital?", "what (is the capital|capital) does {c} have?", "does {c} have a capital( and what is it|)?",
    "(what|how) is the capital of {c} called?", "(where|in which city|in what city) (is|does|sits) the government of {c}( sit|)?", "(and |)the capital of {c}?", "i (am going|travel|fly|want to go|am travelling) to the capital of {c}. (which city is that|what is it called|what city is it|where am i going)?", "which capital (belongs to|does) {c}( have|)?",
    "(what about|how about|and) the capital of {c}?", "(teach me|remind me of|remind me what is|quiz: what is) the capital of {c}", "if i (visit|am in) the capital of {c}, (which city am i in|where am i|what city is that)?",
]
CAPITAL_BACK = ["{k} is the capital of (which|what) (country|land|place)?", "(which|what) country has {k} as (its|the) capital( city|)?", "(of which|of what) country is {k} the capital?", "(which|what) country's capital is {k}?", "(what|which) country is {k} the capital (of|city of)?", "{k} is the capital of?", "(in which|in what|which) country is {k}?", "where is {k}?", "(where does|where do i find|in which country do i find|in what country lies) {k}( lie|)?", "(which|what) country does {k} belong to?"]
CONTINENT_ASK = ["(on|in) (which|what) continent is {c}?", "(which|what) continent is {c} (in|on|part of)?", "(where|where in the world) is {c}?", "(what is|tell me|name) the continent of {c}", "{c} (is in|is on|belongs to|lies in|is part of) (which|what) continent?", "(which|what) continent does {c} (belong to|lie in)?", "is {c} in (europe|africa|asia)( or in asia| or somewhere else|)?"]
SOUND_ASK = [
    "(what|which) (sound|noise) does {a} make?", "(what|tell me what|do you know what|how) does {a} (say|sound like|sound|go)?", "(what is|tell me|what's|give me|name) the (sound|noise|cry) (of|made by) {a}", "(how|which way) does {a} sound?", "(make|imitate|do|play|give me) (the sound of|a sound like|the noise of|like) {a}", "{a} (says|goes|makes)( what|)?", "{n} sound", "the {n} says?", "(what|which) (sound|noise) do {p} make?", "(what|how) do {p} (say|sound|go|sound like)?",
    "what (would|will) {a} say?", "(when|if) {a} (talks|speaks|calls|is loud), what (do you hear|do i hear|does it say)?", "what do you hear (from|when you meet|when you hear) {a}?", "what (kind|sort) of (sound|noise) (does {a} make|comes from {a})?",
]
LEGS_ASK = ["how many legs (does {a} have|has {a}|has {a} got|do {p} have|have {p} got|are on {a}|does {a} walk on|does {a} stand on|do you count on {a})?", "(tell me|what is|give me|do you know|count) the (number|amount) of legs (of|on|for) {a}", "(the |)legs (of|on) {a}?", "{n}(,|:) how many legs?", "{a} has how many legs?", "on how many legs does {a} (walk|stand|go|run)?", "(what|which) number of legs does {a} have?", "(do you know|can you tell me|tell me) how many legs {a} has", "(number|count) of legs: {n}"]
BABY_ASK = ["(what is|what's|what do you call|how do you call|what do we call|what's the name for|what is the name of|tell me the word for|what is the word for) (a baby {n}|a young {n}|the baby of {a}|the young of {a}|the child of {a}|a little {n})( called|)?", "(how|what) is (a baby|a young|the young of a|the baby of a) {n} called?", "a (baby|young) {n} is (called|a)( what|)?", "baby {n}( name|)?", "(name|tell me|say) the (baby|young|child) of {a}", "{a} has a baby. what is it called?", "the (young|baby) of {a} is called?", "{p} have babies. what are they called?"]
HOME_ASK = ["where does {a} live?", "where do {p} live?", "(what is|what's|tell me|name) the home of {a}", "(where|in what|in which place) (can|do|could) (i|you|we) find {a}?", "(which|what) (place|home) (does {a} live in|is {s} home)?", "(tell me|do you know) where {a} lives", "(where is|what is) {s} home?", "{a} lives in?", "(where|in what place) (sleeps|stays) {a}?"]
EAT_ASK = ["what does {a} (eat|like to eat|feed on|have for dinner|live on)?", "what do {p} (eat|like to eat|feed on)?", "(what is|what's|tell me|name) the food (of|for) {a}", "(what|which food) (can|should|do|could) (i|you|we) (feed|give) {a}( to eat|)?", "(tell me|do you know) what {a} eats", "{a} eats( what|)?", "(what is|what's) {s} (favourite |)food?", "(what does|what would) a hungry {n} (eat|want)?"]
OPPOSITE_ASK = [
    "(what is|what's|whats|tell me|give me|name|do you know|say|find|can you tell me|which word is|i need|please tell me|can you name) the (opposite|antonym|contrary|reverse|opposite word|opposite meaning) (of|to|for) {w}?", "opposite (of|to|for) {w}", "(what|which|which word) is (opposite|the opposite) (of|to) {w}?", "{w}(:|,|) (opposite|the opposite|what is the opposite|antonym|its opposite)?", "the opposite of {w} is( what|)?",
    "(which|what) word (is|means) the (opposite|contrary|reverse) (of|to) {w}?", "if (something|it|he|she|a thing) is not {w}, (what is it|it is|then it is|what is he|what is it then)?", "not {w} but( what| rather|)?", "(what|which word) means the (opposite|contrary|reverse) of {w}?", "{w} and its opposite?", "(give|tell|name) (me |)(an|the) antonym (of|for) {w}", "what do you call the opposite of {w}?", "(what|which) (word|is the word) (stands against|contrasts with|is contrary to) {w}?", "{w} is the opposite of( what|)?",
]
COLOUR_ASK = ["(what|which) (colour|color) (is|has) {t}?", "(what is|what's|tell me|name|do you know|give me|say) the (colour|color) of {t}", "(what|which) (colour|color) does {t} have?", "{t} (is|has) (what|which) (colour|color)?", "(colour|color) of {t}?", "what (colour|color) (would|will|do) (you|i) (paint|see on|use for|give) {t}?", "(tell me|do you know|can you tell me) (what|which) (colour|color) {t} is", "{t}: (what |which |)(colour|color)?", "(in|of) (what|which) (colour|color) is {t}?", "(what|which) (is|'s) the usual (colour|color) of {t}?", "i am painting {t}. (what|which) (colour|color) (do i need|should i take|is right)?"]
MIX_ASK = ["(what|which colour|which color|what colour|what color) (do you get|do i get|do we get|results|comes out|appears|is made) (if|when|by|from) (you mix|i mix|mixing|we mix|you combine) {m}?", "mix {m}", "(mixing|if i mix|when i mix|blending) {m} (gives|makes|what do i get|which colour do i get)( what|)?", "what do {m} make( together| when mixed|)?", "(i mix|i blend|i put together) {m}. (what colour do i get|which colour is that|what comes out)?"]
SIDES_ASK = ["how many (sides|edges|corners) (does {a} have|has {a}|has {a} got|are there in {a}|do you count on {a})?", "(tell me|what is|do you know) the number of (sides|corners|edges) (of|in) {a}", "(the |)(sides|corners) of {a}?", "{a} has how many (sides|corners)?", "{n}(,|:) how many (sides|corners)?", "(count|number) of (sides|corners): {n}"]
SIDES_BACK = ["(which|what) (shape|figure) has {k} (sides|corners|edges)?", "(what is|what's|what do you call|name|tell me) a (shape|figure) with {k} (sides|corners)( called|)?", "a (shape|figure) with {k} (sides|corners) is (called|a)?", "{k} (sides|corners)(,|:) (which|what) (shape|is it|figure)( is it|)?"]
NEXT_ASK = {
    "after": ["(what|which) {u} (comes|is|follows) (after|right after|next after|directly after) {d}?", "(what|which) (comes|is) (after|next after|right after) {d}?", "(what|which) {u} follows {d}?", "(what|which one|which) follows {d}?", "(the |tell me the |what is the |name the )(next {u} after|{u} after|{u} following|{u} that follows) {d}", "after {d} (comes|is|we have)( which {u}| what|)?", "(what is|what's) next after {d}?", "{d} is followed by (which|what) {u}?", "{d}, and (then|next|after that)?"],
    "before": ["(what|which) {u} (comes|is) (before|right before|just before|directly before) {d}?", "(what|which) (comes|is|was) (before|right before|just before) {d}?", "(what|which) {u} precedes {d}?", "(the |tell me the |what is the |name the )(previous {u} before|{u} before|{u} preceding|{u} that precedes|{u} in front of) {d}", "before {d} (comes|is|we have)( which {u}| what|)?", "{d} comes after (which|what) {u}?"],
}
TODAY_ASK = {
    1: ["(if |)(today is|it is|it's|today it is|suppose today is|let's say today is) {d}(,|.) (what|which) (day |)(is|will be|comes|will it be) (tomorrow|the next day|the day after)?", "(what|which) day is tomorrow if today is {d}?", "today is {d}, and tomorrow?", "yesterday was {p}(.|,) (what|which) day is tomorrow?"],
    -1: ["(if |)(today is|it is|it's|today it is|suppose today is|let's say today is) {d}(,|.) (what|which) (day |)(was|was it) (yesterday|the day before)?", "(what|which) day was yesterday if today is {d}?", "today is {d}, what about yesterday?"],
    2: ["(if |)(today is|it is|it's) {d}(,|.) (what|which) (day |)(is|will be|will it be) the day after tomorrow?"],
    0: ["(if |)(tomorrow is|tomorrow will be) {n}(,|.) (what|which) (day |)is (it |)today?", "(if |)yesterday was {p}(,|.) (what|which) (day |)is (it |)today?"],
}
NTH_ASK = ["(what|which) is the {o} {u}( of {w}|)?", "(what|which) {u} is the {o}( of {w}| one|)?", "(name|tell me|give me) the {o} {u}( of {w}|)", "(the |){o} {u}( of {w}|)( is|)?", "(which|what) {u} (is|comes) {o}?"]
NTH_BACK = ["(which|what) (number|place|position) (is|has|does) {d}( have| come in|)?", "(is|in) (which|what) (place|position) (is|comes) {d}?", "the (number|position) of {d}( in the year| in the week| from the sun|)?"]
LENGTH_ASK = ["how many days (does|do) {d} have?", "how many days (has|are in|are there in|has got) {d}?", "(how long is|what is the length of|tell me the length of|the number of days in) {d}?", "{d} has how many days?", "days in {d}?"]
UNIT_ASK = ["how many {k}?", "how many {u} (does|has|have) {w}( have| got|)?", "how many {u} (are there|are|do you find|do we have|can you count|do you count) {w2}?", "(tell me|do you know|can you tell me|what is|give me|say) (the number of|how many) {k}", "(the |)number of {k}", "{w} has how many {u}?", "(what number of|count the) {k}"]
PLURAL_ASK = ["(what is|what's|tell me|give me|name|say|do you know) the plural (of|for|form of) {w}", "plural (of|for) {w}", "(the |)plural of {w}( is|)?", "one {w}, (two|many|three|ten) (what|...)?", "(how do you say|what do you call|what is) more than one {w}?", "(make|put|turn) {w} (plural|into the plural)", "{w} in (the |)plural?"]
PAST_ASK = ["(what is|what's|tell me|give me|name|say|do you know) the (past|past tense|past form) (of|for) {w}", "past tense (of|for) {w}", "(the |)past (tense |)of {w}( is|)?", "today i {w}, yesterday i(...| what|)?", "(make|put|turn) {w} (past|into the past|into the past tense)", "{w} in (the |)past( tense|)?"]
KIND_ASK = ["(is|what is|what kind of thing is|what sort of thing is|what is the category of) {a}( exactly|)?", "(what|which) (kind|sort|type) of thing is {a}?", "what is {a}?", "(tell me|do you know|can you tell me) what {a} is", "{a} is (what|a what|what kind of thing)?", "(explain|describe|define) {a}", "what('s| is) {a}?"]
LIST_ASK = ["(name|list|give me|tell me|say|can you name|can you list|write|what are|mention|show me|think of|could you name|i need|i want) (three|3|some|a few|examples of|three examples of|several) {p}( please|)", "(three|some|a few) {p}( please|)", "which {p} do you know?", "(do you know|tell me about) (any|some) {p}( you know|)?", "(examples|an example) of {p}"]
ONE_ASK = ["(name|give me|tell me|say|can you name|think of|pick|choose|mention|suggest) (a|one|any|some|an example of a|one example of a) {k}( please|)", "an example of a {k}", "(which|what) {k} do you (like|know|think of)?"]
ABOUT = ["(what about|how about|and|and for|and what about|and how about) {x}?", "(and |){x}?", "(now|then|next)(:|,|) {x}", "(tell me|do|the same) (also |)(for|about) {x}", "(what|how) (is it|is that) (for|with) {x}?", "same (question|thing) for {x}"]


def plural(noun: str) -> str:
    """The plural of one of the world's animals and kinds."""
    odd = {"mouse": "mice", "goose": "geese", "wolf": "wolves", "sheep": "sheep", "fish": "fish", "fly": "flies", "butterfly": "butterflies", "deer": "deer", "monkey": "monkeys", "octopus": "octopuses", "ostrich": "ostriches", "fox": "foxes", "country": "countries", "donkey": "donkeys", "turkey": "turkeys", "finch": "finches"}
    return odd.get(noun, noun + "s")


def _owner(noun: str) -> str:
    return noun + ("'" if noun.endswith("s") else "'s")


def _animal(rng: random.Random, noun: str) -> dict[str, str]:
    article = rng.choice([a_or_an(noun)] * 3 + ["the " + noun])
    return {"a": article, "n": noun, "p": plural(noun), "s": _owner(article)}


def _capital(rng: random.Random, c: str) -> tuple[str, str]:
    name = c if rng.random() < 0.85 else c.removeprefix("the ")
    return say(rng, CAPITAL_ASK, c=name, s=_owner(name)), f"The capital of {c} is {CAPITALS[c]}."


def _with_about(rng: random.Random, first: tuple[str, str], others: list[tuple[str, str]]) -> Turns:
    """A question, and sometimes `and of Italy?` after it."""
    turns = [first]
    while others and rng.random() < 0.35:
        x, answer = others.pop()
        turns.append((say(rng, ABOUT, x=x), answer))
    return turns


def geography(rng: random.Random) -> Turns:
    """Capitals both ways, and continents."""
    kind = rng.random()
    c, *more = rng.sample(list(CAPITALS), 4)
    if kind < 0.62:
        others = [(rng.choice([m, "of " + m, "the capital of " + m, _owner(m)]), f"The capital of {m} is {CAPITALS[m]}.") for m in more]
        return _with_about(rng, _capital(rng, c), others)
    if kind < 0.85:
        c = {"the USA": "the United States", "England": "the United Kingdom"}.get(c, c)
        more = [m for m in more if m not in ("the USA", "England", c)]
        others = [(rng.choice([CAPITALS[m], CAPITALS[m], "about " + CAPITALS[m]]), f"{CAPITALS[m]} is the capital of {m}.") for m in more]
        return _with_about(rng, (say(rng, CAPITAL_BACK, k=CAPITALS[c]), f"{CAPITALS[c]} is the capital of {c}."), others)
    name = rng.choice(list(CONTINENTS))
    c = rng.choice(CONTINENTS[name])
    other = rng.choice(list(CONTINENTS))
    o = rng.choice(CONTINENTS[other])
    return _with_about(rng, (say(rng, CONTINENT_ASK, c=c), f"{c} is in {name}."), [(o, f"{o} is in {other}.")])


def _legs(n: str) -> str:
    count = LEGS[n]
    return f"{capital(a_or_an(n))} has {'no' if count == '0' else count} legs."


def animals(rng: random.Random) -> Turns:
    """Sounds, legs, young, homes and food."""
    relation, ask = rng.choice([("sound", SOUND_ASK)] * 3 + [("legs", LEGS_ASK)] * 3 + [("baby", BABY_ASK)] * 2 + [("home", HOME_ASK), ("eat", EAT_ASK)])

    def answer(n: str) -> str:
        noun = capital(a_or_an(n))
        if relation == "sound":
            return f"{noun} says {SOUNDS[n]}."
        if relation == "legs":
            return _legs(n)
        if relation == "baby":
            return f"A baby {n} is called a {BABIES[n]}." if BABIES[n][0] not in "aeiou" else f"A baby {n} is called an {BABIES[n]}."
        if relation == "home":
            return f"{noun} lives in {HOMES[n]}."
        return f"{noun} eats {EATS[n]}."

    facts = {"sound": SOUNDS, "legs": LEGS, "baby": BABIES, "home": HOMES, "eat": EATS}[relation]
    n, *more = rng.sample(list(facts), 4)
    if relation in ("baby", "sound") and rng.random() < 0.15:
        values = [v for v in facts.values() if list(facts.values()).count(v) == 1]
        value = rng.choice(values)
        n = next(k for k, v in facts.items() if v == value)
        if relation == "sound":
            return [(say(rng, ["(which|what) animal (says|goes|makes|makes the sound) {v}?", "who says {v}?", "{v} (is the sound of|says|is said by) (which|what) animal?", "(what|which) animal do you hear when (something|it) says {v}?"], v=value), answer(n))]
        return [(say(rng, ["(which|what) animal has (a baby called |)(a |){v}( as a baby|)?", "(a |the |){v} is (the baby of|the young of|a baby) (which|what)( animal|)?", "what does a {v} (become|grow into|grow up to be)?", "what is a {v}?"], v=value), answer(n))]
    return _with_about(rng, (say(rng, ask, **_animal(rng, n)), answer(n)), [(rng.choice([a_or_an(m), a_or_an(m), "the " + m, m, plural(m)]), answer(m)) for m in more])


def words(rng: random.Random) -> Turns:
    """Opposites, plurals and past tenses."""
    kind = rng.random()
    if kind < 0.7:
        w, *more = rng.sample(list(OPPOSITES), 4)
        quote = rng.choice(["{}", "{}", "{}", '"{}"', "'{}'"])
        first = (say(rng, OPPOSITE_ASK, w=quote.format(w)), f"The opposite of {w} is {OPPOSITES[w]}.")
        return _with_about(rng, first, [(rng.choice([m, m, "of " + m]), f"The opposite of {m} is {OPPOSITES[m]}.") for m in more])
    facts, ask, name = (PLURALS, PLURAL_ASK, "plural") if kind < 0.87 else (PASTS, PAST_ASK, "past")
    w, *more = rng.sample(list(facts), 3)
    return _with_about(rng, (say(rng, ask, w=w), f"The {name} of {w} is {facts[w]}."), [(m, f"The {name} of {m} is {facts[m]}.") for m in more])


def colours(rng: random.Random) -> Turns:
    """Colours of things and mixtures."""
    if rng.random() < 0.22:
        m = rng.choice(list(MIXES))
        a, b = m.split(" and ")
        asked = m if rng.random() < 0.5 else f"{b} and {a}"
        if rng.random() < 0.15:
            return [(say(rng, ["(how do i make|how do you make|how can i get|how do i mix|what makes|what do i mix for|which colours make) {v}?"], v=MIXES[m]), f"{capital(m)} make {MIXES[m]}.")]
        return [(say(rng, MIX_ASK, m=asked), f"{capital(m)} make {MIXES[m]}.")]
    t, *more = rng.sample(list(COLOURS), 4)

    def bare(x: str) -> str:
        return x if rng.random() < 0.6 else "the " + x.removeprefix("the ").removeprefix("a ").removeprefix("an ")

    return _with_about(rng, (say(rng, COLOUR_ASK, t=bare(t)), f"{capital(t)} is {COLOURS[t]}."), [(bare(m), f"{capital(m)} is {COLOURS[m]}.") for m in more])


def shapes(rng: random.Random) -> Turns:
    """Sides of shapes, both ways."""
    if rng.random() < 0.3:
        k, n = rng.choice([("3", "triangle"), ("4", "square"), ("5", "pentagon"), ("6", "hexagon"), ("7", "heptagon"), ("8", "octagon"), ("9", "nonagon"), ("10", "decagon")])
        word = dict(zip("3 4 5 6 7 8 9 10".split(), "three four five six seven eight nine ten".split(), strict=True))[k]
        return [(say(rng, SIDES_BACK, k=rng.choice([k, word])), f"{capital(a_or_an(n))} has {k} sides.")]
    if rng.random() < 0.15:
        n = rng.choice(list(SOLIDS))
        return [(say(rng, ["how many faces (does {a} have|has {a}|are there on {a})?", "(the |)number of faces of {a}", "{a} has how many faces?"], a=a_or_an(n)), f"{capital(a_or_an(n))} has {SOLIDS[n]} face{'' if SOLIDS[n] == '1' else 's'}.")]
    n, *more = rng.sample(list(SIDES), 3)

    def answer(m: str) -> str:
        return f"{capital(a_or_an(m))} has {'no' if SIDES[m] == '0' else SIDES[m]} sides."

    return _with_about(rng, (say(rng, SIDES_ASK, a=rng.choice([a_or_an(n), "the " + n]), n=n), answer(n)), [(rng.choice([a_or_an(m), "the " + m]), answer(m)) for m in more])


def calendar(rng: random.Random) -> Turns:
    """Days, months, seasons, planets and letters in their order."""
    kind = rng.random()
    names, unit, whole = rng.choice([(DAYS, "day", "the week")] * 3 + [(MONTHS, "month", "the year")] * 3 + [(PLANETS, "planet", "the solar system"), (list(LETTERS), "letter", "the alphabet"), (SEASONS, "season", "the year")])
    cyclic = unit in ("day", "month", "season")
    if kind < 0.5:
        way = rng.choice(["after", "after", "before"])
        step = 1 if way == "after" else -1
        at = rng.randrange(len(names)) if cyclic else rng.randrange(1, len(names) - 1)
        d, e, f = (names[(at + i * step) % len(names)] for i in range(3))
        shown = d if len(d) > 1 or rng.random() < 0.5 else "the letter " + d
        turns = [(say(rng, NEXT_ASK[way], d=shown, u=unit), f"{capital(way)} {d} comes {e}.")]
        if cyclic and rng.random() < 0.3:
            turns.append((say(rng, [f"and {way} that?", "(and |and the |the |)next( one|)?" if step > 0 else "(and |)the one before( that|)?", f"(what|which one|which) (comes |is |){way} that?", f"and {way} {e}?"]), f"{capital(way)} {e} comes {f}."))
        return turns
    if kind < 0.62:
        at = rng.randrange(7)
        move = rng.choice([1, 1, -1, 2, 0])
        text = say(rng, TODAY_ASK[move], d=DAYS[at], n=DAYS[(at + 1) % 7], p=DAYS[at - 1])
        answer = {1: f"Tomorrow is {DAYS[(at + 1) % 7]}.", -1: f"Yesterday was {DAYS[at - 1]}.", 2: f"The day after tomorrow is {DAYS[(at + 2) % 7]}.", 0: f"Today is {DAYS[at]}."}[move]
        return [(text, answer)]
    if kind < 0.8:
        at = rng.randrange(min(len(names), 12))
        o = ORDINALS[at]
        shown = rng.choice([o, o, f"{at + 1}{'st' if at == 0 else 'nd' if at == 1 else 'rd' if at == 2 else 'th'}"])
        if rng.random() < 0.25 and unit in ("day", "month", "planet", "letter"):
            return [(say(rng, NTH_BACK, d=names[at]), f"{names[at]} is the {o} {unit}.")]
        return [(say(rng, NTH_ASK, o=shown, u=unit, w=whole), f"The {o} {unit} is {names[at]}.")]
    if kind < 0.92:
        at = rng.randrange(12)
        return [(say(rng, LENGTH_ASK, d=MONTHS[at]), f"{MONTHS[at]} has {LENGTHS[at]} days.")]
    at = rng.randrange(12)
    season = SEASONS[(at + 10) % 12 // 3]
    return [(say(rng, ["(in|to) (which|what) season (is|does) {d}( belong|)?", "(which|what) season is {d}( in|)?", "is {d} in (summer|winter|spring|autumn)?", "{d} is in (which|what) season?"], d=MONTHS[at]), f"{MONTHS[at]} is in {season}.")]


def quantities(rng: random.Random) -> Turns:
    """`How many minutes are in an hour?` and its like."""
    items = rng.sample(list(UNITS), 3)

    def answer(key: str) -> str:
        unit, place = key.split(" ", 1)
        count = UNITS[key]
        noun = {"noses": "nose", "hearts": "heart"}.get(unit, unit)
        return f"There {'is' if count == '1' else 'are'} {count} {noun} {place}."

    key = items[0]
    unit, place = key.split(" ", 1)
    where = place.split(" ", 1)[1]
    text = say(rng, UNIT_ASK, k=rng.choice([key, f"{unit} are {place}", f"{unit} are there {place}"]) if rng.random() < 0.6 else key, u=unit, w=where, w2=place)
    return _with_about(rng, (text, answer(key)), [(rng.choice([m, place]) if (place := m.split(" ", 1)[1]) and m.split(" ", 1)[0] == unit else m, answer(m)) for m in items[1:]])


def kinds(rng: random.Random) -> Turns:
    """What a thing is, and examples of a kind."""
    kind = rng.choice(list(KINDS))
    if rng.random() < 0.45:
        kind = rng.choice(["fruit", "vegetable", "bird", "insect", "tool", "vehicle", "instrument", "flower", "tree", "planet", "day", "month", "metal", "animal", "colour", "country"])
        member = rng.choice(KINDS[kind])
        shown = member if kind in ("planet", "day", "month", "metal", "colour", "country") else a_or_an(member)
        return [(say(rng, KIND_ASK, a=shown), f"{capital(shown)} is {a_or_an(kind)}.")]
    names = plural(kind)
    chosen = rng.sample(KINDS[kind], min(4, len(KINDS[kind])))
    if rng.random() < 0.6:
        shown = names if kind != "colour" or rng.random() < 0.7 else "colors"
        turns = [(say(rng, LIST_ASK, p=shown), f"Three {names} are {chosen[0]}, {chosen[1]} and {chosen[2]}.")]
        if rng.random() < 0.4 and len(chosen) > 3:
            turns.append((say(rng, ["(and |)(another one|one more|another|more|a fourth|some other one)( please|, please|?|)", f"(name|tell me|give me) another( one| {kind}|)", f"(do you know|can you name) (another|one more)( {kind}| one|)?"]), f"Another {kind} is {chosen[3]}."))
        return turns
    turns = [(say(rng, ONE_ASK, k=kind), f"{capital(chosen[0])}.")]
    if rng.random() < 0.4:
        turns.append((say(rng, ["(and |)(another one|one more|another|a different one|some other one)( please|, please|?|)", f"(name|tell me|give me) another( one| {kind}|)"]), f"{capital(chosen[1])}."))
    return turns


def general(rng: random.Random) -> Turns:
    """Single facts."""
    ask, answer = rng.choice(MISC)
    return [(say(rng, "(" + ask + ")"), answer)]
