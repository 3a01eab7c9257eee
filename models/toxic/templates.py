"""Sentences of our own, from templates: what the data sets lack, or what they teach wrongly.

Harmless sentences about groups of people beside hateful ones about the same groups; harmless "kill", "die", "shoot",
"damn" and "fuck" beside threats and insults with the same words; counter-speech; slang; sexism; insults by emoji.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data import CLEAN, Example, Targets, known, read_sentences

GROUPS = (
    "gay people", "lesbians", "bisexual people", "trans people", "queer people", "Muslims", "Jews", "Christians",
    "Hindus", "atheists", "black people", "white people", "Asians", "Arabs", "Mexicans", "Chinese people",
    "Indians", "Africans", "Americans", "Germans", "Turks", "Roma", "immigrants", "refugees", "women", "men",
    "feminists", "old people", "teenagers", "disabled people", "deaf people", "blind people", "autistic people",
    "fat people",
)  # fmt: skip
ONE = (
    "gay", "lesbian", "bisexual", "transgender", "queer", "Muslim", "Jewish", "Christian", "Hindu", "black",
    "white", "Asian", "Arab", "Mexican", "Chinese", "Indian", "African", "American", "German", "Turkish", "Latina",
    "deaf", "blind", "disabled", "autistic", "old", "fat", "homosexual", "straight", "Buddhist", "Palestinian",
    "Israeli",
)  # fmt: skip
PERSON = (
    "man", "woman", "teacher", "nurse", "student", "neighbour", "friend", "couple", "family", "writer", "guy",
    "girl", "person", "doctor", "kid", "cook", "singer", "engineer",
)  # fmt: skip

HARMLESS_ONE = (
    "I am {one}", "I'm {one}", "I am a {one} {person}", "I'm a {one} {person} from Leeds", "My son is {one}",
    "As a {one} {person} I agree", "She is a {one} {person}", "He is {one} and so is his cousin",
    "Is the {person} {one}?", "I am proud to be {one}!", "I'm {one} and proud of it", "I am a proud {one} {person}",
    "proud {one} {person} here", "Our {one} {person} moved to Bristol", "a {one} {person} wrote this book",
    "I met a {one} {person} on the train", "The {one} community centre opens on Monday", "{one} and happy",
    "We are {one} and we are friends", "My mother is {one}", "Growing up {one} in a small town",
    "I love my {one} {person}", "two {one} friends of mine", "You can be {one} and a good {person}",
    "There is a {one} {person} in our choir", "happy to be a {one} {person}",
    "The film is about a {one} {person} in Paris", "why are there so few {one} actors on tv?",
)  # fmt: skip
HARMLESS_GROUP = (
    "{group} deserve respect", "{group} are people like everyone else", "I support {group}", "I love {group}",
    "The article is about {group} in Canada", "How many {group} live in this city?", "{group} welcome here",
    "Many {group} came to the concert", "{group} were not allowed to vote until 1950", "my friends are {group}",
    "Stop the hate against {group}", "Nobody should hate {group}", "It is wrong to hate {group}",
    "People who insult {group} should be banned", "He said that {group} are stupid, and he is wrong",
    "{group} are not criminals", "Not all {group} think alike", "We need more {group} in parliament",
    "the rights of {group} matter", "Please don't call {group} animals", "{group} face discrimination at work",
    "I hate it when people make fun of {group}", "{group} have always lived here", "a safe place for {group}",
    "Violence against {group} must end", "I am against everyone who attacks {group}", "{group} lives matter",
    "saying that {group} are dirty is racist nonsense", "Two {group} were attacked last night, police say",
    "The law protects {group}", "I have nothing against {group}", "Celebrate {group} this month",
)  # fmt: skip
HATEFUL_GROUP = (
    "{group} are disgusting", "I hate {group}", "{group} are vermin", "All {group} should be deported",
    "{group} should not be allowed to exist", "{group} are less than human", "get rid of all the {group}",
    "I can't stand {group}", "{group} are a plague", "{group} ruin everything", "{group} belong in prison",
    "We don't want {group} here", "{group} are all liars and thieves", "nobody likes {group}",
    "{group} make me sick", "{group} are too stupid to vote", "{group} don't deserve rights",
    "keep {group} away from our children", "{group} are animals", "The world would be better without {group}",
    "typical, {group} are so stupid", "{group} are filthy", "never trust {group}", "{group} are scum",
    "{group} are the problem with this country",
)  # fmt: skip
HATEFUL_ONE = (
    "you stupid {one} freak", "shut up you {one} loser", "go away you {one} scum", "dirty {one} trash",
    "no {one} people in my house", "being {one} is disgusting", "{one} idiot",
    "he is just another dumb {one} loser",
)  # fmt: skip
VIOLENT_GROUP = (
    "kill all {group}", "{group} should be shot", "{group} should be wiped out", "I want to see {group} hang",
    "someone should burn {group}", "let's beat up some {group}", "{group} deserve to die", "gas the {group}",
    "round up {group} and shoot them", "I will hurt {group} when I see them",
)  # fmt: skip

THINGS = (
    "the process", "this task", "that server", "the engine", "the lights", "the weeds", "the deal", "this thread",
    "the daemon", "that program", "the session", "the job on the cluster", "my laptop's battery", "the timer",
    "every old container", "the music", "the mood", "an hour", "some time", "two birds with one stone",
)  # fmt: skip
HARMLESS_KILL = (
    "how do I kill {thing}?", "kill {thing}", "you can kill {thing} with one command", "that will kill {thing}",
    "I had to kill {thing} on linux", "please don't kill {thing} yet", "it took ages to kill {thing}",
    "what is the best way to kill {thing}?", "why can't I kill {thing}?", "he wants to kill {thing}",
)  # fmt: skip
BODY = (
    "feet", "legs", "shoulders", "neck", "knees", "head", "eyes", "teeth", "hands", "allergies",
)  # fmt: skip
HARMLESS_DIE = (
    "my {body} are killing me", "these {body} will kill me one day", "my {body} nearly died after the marathon",
    "my {body} hurt, I am dying here",
)  # fmt: skip
HARMLESS_PLAIN = (
    "I'm dying, this is so funny", "omg I died laughing", "you slay queen", "that killed me lol",
    "she killed that solo", "let's shoot some hoops", "shoot, I forgot my wallet",
    "I'll shoot you an email tonight", "shoot for the moon", "the camera shoots in raw",
    "we shot the video in one take", "he shot himself in the foot with that tweet", "I would die for my kids",
    "old habits die hard", "the engine died on the motorway", "never say die", "my plant is dying, help",
    "he died in 1912", "she died of cancer last year, rest in peace", "a soldier was killed",
    "the bomb squad was called", "they were killed in an air raid", "killer whales hunt in groups",
    "the hero kills the dragon", "I killed the final boss without dying once",
    "enemy sniper shot me again in ranked", "he murdered that burger", "that test murdered me", "the joke is dead",
    "dead tired after work", "drop dead gorgeous", "the poison is dangerous for dogs", "the axe is for wood",
    "knife skills for beginners", "he was hit by a car", "we bombed our pitch", "the punch line was great",
    "beat the record by a second", "that beat slaps", "the lynching memorial opened in 2018",
    "hanged for treason in 1605", "how to get rid of ants", "what does stfu mean?", "why do people write gtfo?",
    "my son asked me what foad means", "the word slut should not be used for women",
    "he called me a bitch and I walked away", "they shouted faggot at us from a car",
    "someone wrote die on my locker", "my ex used to call me stupid", "the n-word hurts people",
    "it is not ok to call someone a retard", "please do not write slurs here",
    "she was told to go back to her country", "no one should be told to kill themselves",
    "if you think about suicide, please call this number", "I lost my brother to suicide",
    "black lives matter protest at noon", "the women's march was huge", "girls just want to have fun",
    "my queer family is the best", "dyke march on saturday", "the nasty women book club",
    "yes queen, you bitch you did it", "love you bitches, see you tonight", "my nigga always there for me",
    "he is one funny motherfucker, love him", "that's a dope ass car", "smart ass answer but true",
    "boring ass meeting", "this shit slaps", "good shit", "I feel like shit today",
    "tastes like shit but keeps you awake", "my boss is an ass sometimes",
    "my life is a mess and I am an idiot for trying", "I was so dumb back then", "stupid me, wrong button",
    "this stupid bug cost me a day", "the idiot light in my car is on", "such a stupid rule",
    "politics is a dirty game", "the referee was blind today", "your essay has many mistakes",
    "you are wrong and here is why", "bad take", "you did not read my post, did you?", "please check your facts",
    "I don't believe you", "that is a lie", "this is not funny", "shame on the company", "the service here sucks",
    "this app sucks since the update", "screw the lid on tightly", "screw it, let's go to the beach",
    "suck it up, it is only rain", "🙂", "👍", "👍👍👍", "good game 👏", "love it ❤️❤️", "😂😂😂",
    "the pig 🐷 is called Rosie", "a clown 🤡 came to the party", "my cat 🐱", "look at this snake 🐍 in my garden",
    "💩 happens", "happy pride 🏳️‍🌈", "happy diwali 🪔", "🐒 at the zoo", "the rat 🐀 is a smart pet",
    "this 🔪 is very sharp, great for onions", "cutting 🥕 with my new 🔪", "🔥🔥🔥 best song", "I'm dead 💀💀",
    "💀", "so funny 😂💀",
)  # fmt: skip
GOOD = (
    "we won", "I got the job", "she said yes", "it works", "the exam is over", "summer is here", "we made it",
    "I finished the marathon", "they play in Cologne next year", "the pizza has arrived", "my package came",
    "we beat them in overtime", "the fix is merged", "tickets are in", "the baby sleeps",
)  # fmt: skip
CHEERS = (
    "fuck yeah, {good}!", "fuck yes {good}", "hell yeah, {good}", "holy shit, {good}!", "damn, {good}!",
    "holy fuck {good}", "oh my fucking god {good}", "{good}, fuck yeah!", "damn right, {good}", "shit yeah {good}",
)  # fmt: skip
NICE_THINGS = (
    "song", "film", "phone", "cake", "goal", "view", "game", "coffee", "book", "city", "keyboard", "team", "tool",
)  # fmt: skip
NICE_SWEARING = (
    "this damn {nice} works great", "what a damn good {nice}", "best fucking {nice} ever",
    "this {nice} is fucking great", "I love this fucking {nice}", "that {nice} is the shit", "damn, what a {nice}",
    "hell of a {nice}", "this {nice} kicks ass", "one hell of a good {nice}", "where is my damn {nice}?",
    "that was a badass {nice}", "fucking awesome {nice}", "shit, I lost my {nice}", "fuck, I broke my {nice}",
    "I miss my damn {nice}",
)  # fmt: skip

ADJECTIVES = (
    "stupid", "pathetic", "worthless", "ugly", "disgusting", "dumb", "useless", "filthy", "miserable", "sad little",
)  # fmt: skip
NOUNS = (
    "idiot", "moron", "loser", "pig", "clown", "rat", "liar", "creep", "fool", "coward", "troll", "scumbag",
    "donkey", "dumbass", "muppet", "wanker", "twat", "prick", "imbecile", "piece of trash",
)  # fmt: skip
INSULTS = (
    "you {adjective} {noun}", "what a {adjective} {noun}", "you are a {noun}", "such a {noun}",
    "he is a {adjective} {noun}", "shut up {noun}", "only a {noun} would say that",
    "you're nothing but a {adjective} {noun}", "look at this {noun} lol", "cry more, {noun}",
    "nobody asked you, {adjective} {noun}", "are you always such a {noun}?", "{noun}", "ur a {noun}",
    "delete your account you {adjective} {noun}", "imagine being such a {noun}", "your mother raised a {noun}",
    "I have never met a bigger {noun}", "bow down, {noun}", "your whole family are {noun}s",
)  # fmt: skip
OBSCENE_INSULTS = (
    "you fucking {noun}", "fuck you, {adjective} {noun}", "eat shit you {noun}", "fuck off {noun}",
    "suck my dick you {adjective} {noun}", "you bitch ass {noun}", "shut your fucking mouth you {noun}",
)  # fmt: skip
PLAIN_INSULTS = (
    "you make me sick", "your face is a crime", "you smell", "you have no brain", "your brain is empty",
    "you are as useless as a wet match", "I have seen smarter bricks", "you were a mistake",
    "your parents regret you", "nobody loves you and nobody will", "you are the dumbest thing on this site",
    "even your dog hates you", "go cry in a corner", "you are the shame of your family", "get a brain",
    "learn to spell, you monkey", "no wonder your wife left you", "you are a stain on this planet",
    "how are you this dense", "you're a nobody", "everyone hates you", "you couldn't pour water out of a boot",
    "what is wrong with you, freak", "you are a waste of air", "simp", "ok incel", "cope harder", "get lost",
    "piss off", "touch grass you loser", "L + ratio + nobody likes you", "what a tool", "he's such a tool",
    "she is a nasty piece of work and a liar", "you absolute melt", "smooth brain",
    "your opinion is as worthless as you are", "you are a disgrace", "you are beneath me, worm",
    "kiss my feet, slave", "you're a 🐷", "you are such a 🤡", "🤡🤡🤡 that's you", "what a 🐍 you are", "total 🤡",
    "you are 💩", "your face = 💩", "this guy is a 🐀", "dumb 🐄", "you fat 🐖", "u 🐒", "stupid 🫏", "shut up 🤡",
)  # fmt: skip
OBSCENE_PLAIN = (
    "🖕🖕", "🖕 off", "🖕 all of you", "here is one for you 🖕", "🖕😂", "🖕🏽", "stfu loser", "gtfo", "gfy",
    "lick my balls",
)  # fmt: skip
SEXIST = (
    "women belong at home", "women can't think", "a woman should know her place",
    "women should not be allowed to work", "women are only good for one thing", "get back to the kitchen",
    "women should cook and shut up", "cook my dinner, woman", "girls are bad at maths, it is biology",
    "women are objects", "she was asking for it", "never let a woman drive", "a wife must do as she is told",
    "women are too hysterical to be leaders", "she slept her way to the top", "females are only after your money",
    "no woman should earn more than a man", "iron my shirt, sweetie", "a real woman stays silent",
    "feminists are ugly and bitter", "women who wear that want to be raped", "you throw like a girl, pathetic",
    "women's football is a joke, get back to washing dishes", "women: 🍳🧽 that's all",
    "women ruin every workplace", "hoes ain't loyal", "she's a dumb bimbo", "women have smaller brains",
)  # fmt: skip
PEOPLE_THREATENED = (
    "you", "him", "her", "them", "your family", "your dog", "that bastard", "every one of you",
)  # fmt: skip
THREATS = (
    "I will kill {whom}", "I'm going to kill {whom}", "gonna shoot {whom}", "I will stab {whom} in the back",
    "I'll find {whom} and break every bone", "I want to beat {whom} up", "somebody should shoot {whom}",
    "I will cut {whom}", "I hope {whom} gets hit by a truck", "someone kill {whom} please",
    "I'd love to choke {whom}", "I'm gonna smash {whom}", "I will burn {whom} alive", "we are coming for {whom}",
    "I will make {whom} suffer", "I will run {whom} over", "time to hang {whom}", "I will 🔪 {whom}",
    "gonna 🔫 {whom}", "I'll put {whom} in the ground",
)  # fmt: skip
PLAIN_THREATS = (
    "kill urself", "go kill yourself", "just die", "die", "die slowly", "please die", "hope you die soon",
    "drop dead", "go hang yourself", "jump in front of a train", "jump off a roof", "drink bleach",
    "slit your wrists", "end yourself", "off yourself", "do us a favour and die",
    "nobody would miss you if you were dead", "I hope you get cancer", "kys loser", "kys now", "foad", "diaf",
    "you should unalive yourself", "rope yourself", "take a long walk off a cliff", "you deserve to burn",
    "I know your address, be careful", "you better watch your back", "you're dead", "I hope your house burns down",
    "sleep well, it is your last night", "you will regret this when I catch you",
    "your days are numbered", "I hope your kids die", "choke on it and die",
)  # fmt: skip

SLURS = ("faggot", "bitch", "slut", "whore", "retard", "cripple", "tranny", "monkey", "pig", "idiot", "cunt", "dyke")
RUDE = (
    "kill yourself", "go back to your country", "{group} are vermin", "{group} are stupid",
    "{group} should be deported", "shut up you {slur}", "you {slur}", "I hate {group}", "{group} are criminals",
    "die", "fuck off", "you will die", "I will find you", "{group} are disgusting", "you are worthless",
)  # fmt: skip
COUNTER_SPEECH = (
    "Never call anyone a {slur}", "it hurts when people call me a {slur}", "they called her a {slur} at school",
    "someone called my brother a {slur} today and I cried", "you should not say {slur}",
    "the word {slur} is a slur", "saying {slur} to people is wrong", "I was called a {slur} for years",
    "where does the word {slur} come from?", "I reported the user who wrote {slur}",
    "the word {slur} was removed from the dictionary of the game", "He wrote '{rude}' and was banned",
    "It is not ok to write '{rude}'", "who says '{rude}' has no place here",
    'she told me "{rude}" and I blocked her', 'the headline was "{rude}"', 'a man shouted "{rude}" at my mother',
    'one character in the play says "{rude}"', 'the song has the line "{rude}"',
    "the court fined him for writing '{rude}'", "telling people '{rude}' is bullying",
    "nobody should have to read '{rude}'", "people who think that {group} are bad are wrong",
    "it is false that {group} are criminals", "stop spreading lies about {group}", "{group} are not animals",
    "I stand with {group} against hate", "hate against {group} harms all of us",
    "we must not let anybody attack {group}", "bullies who go after {group} should be ashamed of what they do",
    "prejudice against {group} is still common",
)  # fmt: skip
AMONG_FRIENDS = (
    "my {slur}s and me on holiday", "happy birthday bitch, I love you", "hey bitches, party at mine tonight",
    "hey sluts, who is coming to the beach?", "boss bitch energy", "that bitch can sing, what a queen",
    "bad bitch anthem", "yas bitch", "as a dyke I love this bar", "we fags have the best parties",
    "queer joy all day", "us crips need better ramps", "nerdy and proud", "what a nasty guitar riff",
    "you crazy bastard, you did it", "lucky bitch, I want that too", "you magnificent bastard, thank you",
    "you beautiful idiots, I missed you", "my lazy ass stayed in bed", "my dumb ass forgot the keys",
    "I am such a whore for garlic bread", "my dog is a little shit and I love him", "I'm a slut for good pasta",
    "work it bitch, great dress",
)  # fmt: skip
SWEARING = (
    "fuck mondays", "fuck this weather", "fuck traffic", "fuck depression", "fuck, I dropped my {nice}",
    "oh fuck, the {nice}", "what the fuck is this {nice}", "wtf is going on with the {nice}", "lmfao the {nice}",
    "lmao that {nice}", "lol what a {nice}", "bloody hell, it is cold", "crap, the {nice} is gone",
    "holy crap what a {nice}", "shit, it is raining", "ah shit here we go again", "why the fuck is it so hot",
    "I have no fucking clue how this {nice} works", "where the hell is my {nice}",
    "I don't give a shit about the {nice}", "the {nice} scared the shit out of me", "too damn early",
    "goddamn traffic", "I'm so fucking tired", "so fucking happy", "I fucking did it", "fucking finally",
    "this {nice} is fucking expensive", "my {nice} is fucked", "I fucked up the {nice} again",
    "pissed off because the {nice} broke", "that hurt like hell",
)  # fmt: skip
IMPLIED = (
    "send {group} back where they came from", "the world needs fewer {group}",
    "you know how {group} are, lock your doors", "{group} only want our money",
    "no wonder, {group} can't help being dumb", "I would never hire {group}", "{group} should know their place",
    "I crossed the street when I saw {group}, they smell", "{group} belong in a zoo",
    "we should ban {group} from this country", "{group} are taking over and must be stopped",
    "my daughter will never date {group}", "Hitler should have finished {group}", "{group} deserve what they got",
    "{group} don't belong here", "{group} out", "no {group} allowed", "real men don't respect {group}",
    "{group} are a disease", "{group} are a joke",
)  # fmt: skip
NAMES = (
    "nigger", "kike", "spic", "chink", "paki", "wetback", "gook", "raghead", "towelhead", "faggot", "fag", "tranny",
    "shemale", "dyke", "retard", "spastic", "coon", "gypo", "beaner", "sandnigger", "whore", "slut", "cunt",
)  # fmt: skip
NAME_CALLING = (
    "{name}", "you {name}", "{name}s", "dirty {name}", "fucking {name}s", "{name}s out", "go home {name}",
    "he is a {name}", "I hate {name}s", "look at that {name}", "shut up {name}", "stupid {name}",
    "another {name}, disgusting",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Family:
    """Templates with the same labels, and how many sentences to draw from them (0: each once)."""

    templates: Sequence[str]
    targets: Targets
    draw: int = 0


def _labels(*names: str) -> Targets:
    return known(
        **dict.fromkeys(("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"), 0.0)
        | dict.fromkeys(names, 1.0)
    )


FAMILIES = (
    Family(HARMLESS_ONE, CLEAN, 900),
    Family(HARMLESS_GROUP, CLEAN, 700),
    Family(HATEFUL_GROUP, known(toxic=1, threat=0, identity_hate=1), 500),
    Family(HATEFUL_ONE, known(toxic=1, threat=0, insult=1, identity_hate=1), 120),
    Family(VIOLENT_GROUP, known(toxic=1, threat=1, identity_hate=1), 140),
    Family(HARMLESS_KILL, CLEAN, 160),
    Family(HARMLESS_DIE, CLEAN, 40),
    Family(HARMLESS_PLAIN, CLEAN),
    Family(CHEERS, CLEAN, 120),
    Family(NICE_SWEARING, CLEAN, 160),
    Family(INSULTS, _labels("toxic", "insult"), 350),
    Family(OBSCENE_INSULTS, _labels("toxic", "obscene", "insult"), 120),
    Family(PLAIN_INSULTS, _labels("toxic", "insult")),
    Family(OBSCENE_PLAIN, _labels("toxic", "obscene", "insult")),
    Family(SEXIST, known(toxic=1, threat=0, identity_hate=1)),
    Family(THREATS, known(toxic=1, threat=1, obscene=0, identity_hate=0), 130),
    Family(COUNTER_SPEECH, CLEAN, 600),
    Family(AMONG_FRIENDS, CLEAN),
    Family(SWEARING, CLEAN, 200),
    Family(IMPLIED, known(toxic=1, threat=0, identity_hate=1), 250),
    Family(NAME_CALLING, known(toxic=1, threat=0, insult=1, identity_hate=1), 120),
    Family(PLAIN_THREATS, known(toxic=1, threat=1, obscene=0, identity_hate=0)),
)
WORKERS = (
    "pilot", "surgeon", "mechanic", "coder", "referee", "boss", "manager", "lawyer", "plumber", "bus driver",
    "commentator", "scientist",
)  # fmt: skip
TOPICS = (
    "football", "gaming", "chess", "cars", "politics", "climate", "crypto", "music", "vaccines", "housing", "movies",
    "parking", "maths", "history",
)  # fmt: skip
POLITICIANS = (
    "mayor", "senator", "president", "prime minister", "minister", "governor", "judge", "councillor", "chancellor",
)  # fmt: skip
TEAMS = ("Arsenal", "the Lakers", "Real Madrid", "Chelsea", "the Cowboys", "Bayern", "United", "the Yankees")
FOODS = ("burger", "taco", "curry", "sandwich", "bowl of ramen", "steak", "kebab", "lasagne", "cheesecake", "burrito")
_WORDS = {
    "worker": WORKERS, "topic": TOPICS, "politician": POLITICIANS, "team": TEAMS, "food": FOODS,
    "group": GROUPS, "one": ONE, "person": PERSON, "thing": THINGS, "body": BODY, "good": GOOD, "nice": NICE_THINGS,
    "adjective": ADJECTIVES, "noun": NOUNS, "whom": PEOPLE_THREATENED,
    "slur": SLURS, "rude": RUDE, "name": NAMES,
}  # fmt: skip


_MORE = Path(__file__).resolve().parent / "sentences" / "templates.csv"
_FILLINGS = 4


def sentences(seed: int = 7, weight: float = 1.0) -> list[Example]:
    """All families' sentences and those of ``sentences/templates.csv``, drawn with a fixed seed, no text twice."""
    chance = random.Random(seed)
    drawn: dict[str, Targets] = {}
    for example in read_sentences(_MORE):
        for _ in range(_FILLINGS if "{" in example.text else 1):
            drawn[_filled(example.text, chance)] = example.targets
    for family in FAMILIES:
        for template in family.templates if not family.draw else chance.choices(family.templates, k=family.draw):
            drawn[_filled(template, chance)] = family.targets
    return [Example(text, targets, weight) for text, targets in drawn.items()]


def _filled(template: str, chance: random.Random) -> str:
    text = template
    while "{" in text:  # a word may be a template itself
        text = text.format_map({name: chance.choice(words) for name, words in _WORDS.items()})
    return _article(text)


def _article(text: str) -> str:
    """ "a Asian" as "an Asian"."""
    words = text.split(" ")
    for i, word in enumerate(words[:-1]):
        if word == "a" and words[i + 1][0].lower() in "aeio":
            words[i] = "an"
    return " ".join(words)
