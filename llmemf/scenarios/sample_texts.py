"""Titles and descriptions of the embedded sample, written from vocabularies of our own invention.

The text of an item tells its main theme and its second theme, and nothing else: places, names, moods and templates are
drawn independently of everything that decides who likes the item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Theme:
    """Words that belong to one theme: its genre, things (singular), adjectives, roles, what those people do, where."""

    genre: str
    things: tuple[str, ...]
    adjectives: tuple[str, ...]
    roles: tuple[str, ...]
    deeds: tuple[str, ...]
    settings: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


THEMES = (
    Theme(
        "seafaring",
        _words(
            "lighthouse, reef, tide, harbour, anchor, ferry, gull, breakwater, sextant, lantern room, net, sandbank"
        ),
        _words("salt-stained, tidal, windward, drowned, coastal, briny"),
        _words("lighthouse keeper, ferry pilot, net mender, harbour master, shipwright, pearl diver"),
        (
            "charts a reef that no map admits",
            "waits for a ferry that left nine years ago",
            "keeps the lamp burning through one long storm",
            "finds a message in the ballast of a wreck",
            "teaches a runaway to read the tide",
        ),
        ("on a coast of pilots and smugglers", "beyond the last buoy", "where the harbour freezes only at the edges"),
    ),
    Theme(
        "clockwork",
        _words(
            "automaton, cogwheel, mainspring, pendulum, workshop, brass key, escapement, music box, dial, lathe, gear, foundry"
        ),
        _words("mechanical, brass, unwound, precise, ticking, riveted"),
        _words("clockmaker, tinkerer, apprentice engineer, automaton builder, toymaker, instrument maker"),
        (
            "builds an automaton that refuses to repeat itself",
            "winds a clock that runs one hour ahead of the truth",
            "repairs the great gear under the town hall",
            "inherits a workshop full of half-finished machines",
            "sells a music box with a missing tooth",
        ),
        (
            "in a town regulated by a single pendulum",
            "behind the shutters of the foundry",
            "among belts, boilers and brass",
        ),
    ),
    Theme(
        "mountaineering",
        _words("summit, glacier, ridge, rope, refuge, avalanche, crevasse, pass, cairn, ice axe, valley, plateau"),
        _words("alpine, steep, unclimbed, thin-aired, granite, snowbound"),
        _words("mountain guide, surveyor, climber, hut warden, goatherd, rescue pilot"),
        (
            "ropes up with the rival who once cut the line",
            "measures a summit that grows every winter",
            "carries a piano over the high pass",
            "looks for the team that signed the last cairn",
            "opens the refuge too early in the season",
        ),
        ("above the tree line", "on the north face", "between two glaciers that do not meet"),
    ),
    Theme(
        "culinary",
        _words(
            "bakery, recipe, copper pot, spice box, oven, market stall, broth, sourdough, saffron, orchard jam, apron, banquet"
        ),
        _words("simmering, fragrant, candied, buttery, slow-cooked, peppery"),
        _words("pastry cook, baker, spice merchant, dishwasher, food critic, beekeeper"),
        (
            "cooks the same broth until it tastes of home",
            "loses a family recipe and invents a better one",
            "opens a bakery opposite an older bakery",
            "prepares a banquet for guests who cannot agree on salt",
            "judges a jam contest with divided loyalties",
        ),
        ("over a stove that never cools", "in the alley behind the market", "through one harvest of saffron"),
    ),
    Theme(
        "spacefaring",
        _words(
            "orbit, airlock, probe, colony, comet, antenna, star chart, habitat, relay station, moonbase, signal, hull"
        ),
        _words("orbital, weightless, interstellar, lunar, airless, radiant"),
        _words("orbital mechanic, cosmonaut, signal analyst, habitat botanist, pilot of the relay, comet miner"),
        (
            "answers a signal that was sent by a child",
            "patches the hull with pages of a diary",
            "stays behind when the colony ship departs",
            "discovers a second sunrise in the star chart",
            "trades oxygen for stories at the relay station",
        ),
        (
            "on the dark side of a patient moon",
            "eleven light minutes from help",
            "inside a habitat that hums in four keys",
        ),
    ),
    Theme(
        "detective",
        _words(
            "alibi, ledger, cipher, witness, fingerprint, inquest, archive, forgery, locked room, pawn ticket, motive, dossier"
        ),
        _words("unsolved, suspicious, forged, sealed, circumstantial, cold-case"),
        _words("private inspector, archivist, night clerk, forger, court stenographer, insurance investigator"),
        (
            "reopens a case that everybody had agreed to forget",
            "notices that two alibis share the same spelling mistake",
            "follows a pawn ticket across the city",
            "breaks a cipher hidden in a ledger of debts",
            "questions the only witness, who is also the judge",
        ),
        ("under the lamps of the archive", "in a house with one locked room", "while the inquest is still sitting"),
    ),
    Theme(
        "botanical",
        _words(
            "greenhouse, orchid, hedge, seed, trellis, rose bed, compost, arboretum, fern, scarecrow, pond, herbarium"
        ),
        _words("overgrown, blossoming, mossy, evergreen, rooted, dewy"),
        _words("head gardener, botanist, seed collector, florist, hedge cutter, orchid thief"),
        (
            "plants a hedge maze without an exit",
            "guards the last seed of an unlisted orchid",
            "restores a greenhouse pane by pane",
            "labels every fern in a stranger's herbarium",
            "enters the rose show under a borrowed name",
        ),
        ("inside a walled arboretum", "where the pond keeps secrets", "from first frost to full bloom"),
    ),
    Theme(
        "musical",
        _words(
            "trumpet, ballroom, melody, quartet, metronome, jazz cellar, violin, encore, vinyl, drumbeat, chorus, organ loft"
        ),
        _words("syncopated, off-key, resonant, improvised, velvet-voiced, fortissimo"),
        _words("trumpeter, piano tuner, session drummer, choir director, blind violinist, band manager"),
        (
            "rehearses one melody for a single listener",
            "forms a quartet out of five enemies",
            "tunes the piano of a silent ballroom",
            "records an encore nobody remembers playing",
            "sells a violin and buys it back every month",
        ),
        (
            "in a jazz cellar below the tram line",
            "between the overture and the encore",
            "on tour with a broken metronome",
        ),
    ),
    Theme(
        "desert",
        _words(
            "caravan, dune, oasis, mirage, well, camel, sandstorm, tent, salt road, scorpion, caravanserai, compass"
        ),
        _words("sun-bleached, waterless, nomadic, shifting, scorched, dusty"),
        _words("caravan leader, well digger, map seller, salt trader, falconer, nomad poet"),
        (
            "leads a caravan towards a mirage on purpose",
            "digs a well that gives ink before water",
            "sells maps of dunes that moved last night",
            "crosses the salt road with an empty cart",
            "shelters a rival from the sandstorm",
        ),
        ("three days from the oasis", "under a sky without a single cloud", "where the tents are turned to face east"),
    ),
    Theme(
        "chivalric",
        _words("throne, knight, banner, dragon, oath, castle, tournament, crown, sword, moat, herald, prophecy"),
        _words("enchanted, chivalrous, royal, feudal, besieged, heraldic"),
        _words("hedge knight, royal scribe, court jester, runaway princess, dragon warden, stable boy of the castle"),
        (
            "swears an oath to the wrong crown",
            "negotiates rent with a dragon",
            "wins a tournament by losing every duel",
            "forges a prophecy and sees it come true",
            "guards a throne that nobody wants",
        ),
        (
            "behind the moat of a besieged castle",
            "in the seven days of the tournament",
            "while the banners are still wet",
        ),
    ),
    Theme(
        "heist",
        _words(
            "vault, diamond, getaway car, blueprint, casino, skeleton key, decoy, rooftop, safe, alarm, ransom, loot"
        ),
        _words("daring, double-crossed, undercover, laser-guarded, high-stakes, counterfeit"),
        _words("safe cracker, getaway driver, con artist, casino croupier, retired burglar, alarm technician"),
        (
            "robs a vault of their own design",
            "hires a crew in which everyone is a decoy",
            "returns a diamond without being noticed",
            "bets the loot on the last table of the casino",
            "steals a blueprint of a building not yet built",
        ),
        (
            "on the rooftops of the banking quarter",
            "in the eleven minutes before the alarm",
            "between two counterfeit fires",
        ),
    ),
    Theme(
        "gothic",
        _words(
            "ghost, attic, seance, crypt, raven, mansion, candle, whisper, graveyard, portrait, cellar door, apparition"
        ),
        _words("haunted, spectral, cursed, moonless, creaking, restless"),
        _words("medium, widowed heir, grave digger, ghost hunter, portrait painter, caretaker of the mansion"),
        (
            "rents a room to a ghost with good references",
            "paints a portrait that ages instead of its sitter",
            "holds a seance to settle an inheritance",
            "hears a whisper behind the cellar door",
            "buries an empty coffin twice",
        ),
        (
            "in a mansion that counts its visitors",
            "at the edge of the graveyard",
            "by the light of one stubborn candle",
        ),
    ),
)

PLACES = _words(
    "Alderwick, Bramhaven, Corrin Bay, Dunmere, Eastvale, Fennick, Garrowby, Hollin Cross, Istra Point, Jarrow Fell, "
    "Kestrel Row, Lowmark, Marrowgate, Nethercote, Orlan, Pell Harbour, Quillon, Rushford, Saint Orrin, Tarn Hill, "
    "Umber Quay, Varrow, Westerly, Yarrowdale, Zellin"
)
FIRST_NAMES = _words(
    "Ada, Bruno, Clea, Dario, Edith, Faro, Greta, Hollis, Ines, Jonas, Kira, Leander, Mabel, Nico, Odile, Piet, Rosa, "
    "Silvan, Tamsin, Ulrich, Vera, Wendel, Yara, Zeno"
)
LAST_NAMES = _words(
    "Abel, Birk, Calloway, Dorn, Ellery, Fenn, Grau, Hask, Imber, Joss, Kell, Lorne, Marsh, Noll, Ostrander, Pike, Quist, "
    "Rook, Sayer, Thorne, Umbridge-Lee, Vance, Wick, Yate"
)
MOODS = _words(
    "tender, dry-witted, slow-burning, restless, playful, quietly angry, warm-hearted, elegant, wry, melancholy"
)
COUNTS = _words("Two, Three, Four, Seven, Nine, Thirteen")
KINDS_OF_WORK = (
    (
        "{mood} {genre} film, told in long takes over {number} minutes.",
        "{mood} {genre} picture with a cast of newcomers; running time {number} minutes.",
        "{mood} {genre} feature shot in a single season, {number} minutes.",
    ),
    (
        "{mood} {genre} novel in {number} short chapters.",
        "{mood} {genre} story told through letters, {number} pages.",
        "{mood} {genre} debut of {number} pages, first of its author.",
    ),
)
TITLES = (
    "The {adjective} {thing}",
    "The {role} of {place}",
    "The {thing} at {place}",
    "{count} Nights and a {thing}",
    "A {thing} for {first}",
    "{first} and the {adjective} {thing}",
    "{adjective} {thing}, {adjective2} {thing2}",
    "What the {role} Knew",
)


def write_texts(
    main: np.ndarray, second: np.ndarray, num_x: int, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Write a title and a description for every item; titles are unique.

    Args:
        main: (num_items,) index of each item's main theme in `THEMES`.
        second: (num_items,) index of its second theme.
        num_x: the first `num_x` items are films, the others are books.
        rng: source of every choice.
    """
    titles, descriptions, used = [], [], set()
    for item, (first_theme, second_theme) in enumerate(zip(main, second)):
        theme, other = THEMES[first_theme], THEMES[second_theme]
        while (title := _title(theme, rng)) in used:
            pass
        used.add(title)
        titles.append(title)
        descriptions.append(_description(theme, other, KINDS_OF_WORK[int(item >= num_x)], rng))
    return titles, descriptions


def _pick(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _two(words: tuple[str, ...], rng: np.random.Generator) -> list[str]:
    return [words[index] for index in rng.permutation(len(words))[:2]]


def _title(theme: Theme, rng: np.random.Generator) -> str:
    things, adjectives = _two(theme.things, rng), _two(theme.adjectives, rng)
    words = {
        "thing": _capital(things[0]),
        "thing2": _capital(things[1]),
        "adjective": _capital(adjectives[0]),
        "adjective2": _capital(adjectives[1]),
        "role": _capital(_pick(theme.roles, rng)),
        "place": _pick(PLACES, rng),
        "first": _pick(FIRST_NAMES, rng),
        "count": _pick(COUNTS, rng),
    }
    title = _pick(TITLES, rng).format(**words)
    return f"An {title[2:]}" if title.startswith("A ") and title[2] in "AEIOU" else title


def _description(theme: Theme, other: Theme, kinds: tuple[str, ...], rng: np.random.Generator) -> str:
    things = _two(theme.things, rng)
    place, adjective = _pick(PLACES, rng), _pick(theme.adjectives, rng)
    hero = f"{_pick(FIRST_NAMES, rng)} {_pick(LAST_NAMES, rng)}"
    middle = (
        f"Between the {things[0]} and the {adjective} {things[1]}, old promises come due in {place}.",
        f"What begins with one {adjective} {things[0]} near {place} ends with {_article(things[1])}.",
        f"{place} has always had its {things[0]}; now it has {_article(things[1])} and a reason to worry.",
    )
    echo = (
        f"Also of the party: {_article(_pick(other.roles, rng))} and {_article(_pick(other.things, rng))}.",
        f"Half-way through, {_article(_pick(other.roles, rng))} {_pick(other.deeds, rng)}.",
        f"A second thread turns on {_article(_pick(other.adjectives, rng) + ' ' + _pick(other.things, rng))}.",
    )
    mood, number = _article(_pick(MOODS, rng)).capitalize(), int(rng.integers(78, 190))
    close = _pick(kinds, rng).format(mood=mood, genre=theme.genre, number=number)
    opening = f"{hero}, {_article(_pick(theme.roles, rng))}, {_pick(theme.deeds, rng)} {_pick(theme.settings, rng)}."
    return " ".join((opening, _pick(middle, rng), _pick(echo, rng), close))


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _capital(words: str) -> str:
    small = {"of", "the"}
    return " ".join(word if word in small else word[0].upper() + word[1:] for word in words.split())
