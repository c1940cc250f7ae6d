"""What the embedded model draws: emoji on backgrounds, and how a caption says it."""

import itertools

BACKGROUNDS = {
    "white": (250, 250, 250),
    "black": (25, 25, 28),
    "red": (205, 60, 60),
    "yellow": (245, 215, 95),
    "green": (95, 175, 95),
    "blue": (80, 130, 215),
    "purple": (140, 90, 185),
    "pink": (245, 170, 195),
}

# short name in the data set -> words of the caption, if the two differ
NAMES = {
    "apple": "red apple", "green_apple": "green apple", "tangerine": "orange", "kiwifruit": "kiwi",
    "cheese_wedge": "cheese", "hot_pepper": "hot pepper", "fries": "french fries", "hotdog": "hot dog",
    "birthday": "birthday cake", "cake": "slice of cake", "icecream": "ice cream", "bug": "caterpillar",
    "honey_pot": "honey pot", "fox_face": "fox", "panda_face": "panda", "lion_face": "lion",
    "monkey_face": "monkey", "unicorn_face": "unicorn", "baby_chick": "chick", "tropical_fish": "tropical fish",
    "evergreen_tree": "pine tree", "deciduous_tree": "tree", "palm_tree": "palm tree", "four_leaf_clover": "clover",
    "maple_leaf": "maple leaf", "cherry_blossom": "cherry blossom", "oncoming_automobile": "red car",
    "oncoming_bus": "bus", "oncoming_taxi": "taxi", "boat": "sailboat", "sunny": "sun", "full_moon": "full moon",
    "crescent_moon": "crescent moon", "zap": "lightning bolt", "droplet": "water drop",
    "snowman_without_snow": "snowman", "earth_americas": "globe", "soccer": "soccer ball",
    "football": "american football", "teddy_bear": "teddy bear", "bulb": "light bulb", "closed_book": "red book",
    "gem": "diamond", "tophat": "top hat", "robot_face": "robot", "jack_o_lantern": "pumpkin", "heart": "red heart",
    "blue_heart": "blue heart", "sunglasses": "smiley with sunglasses", "slightly_smiling_face": "smiley",
    "8ball": "billiard ball", "octagonal_sign": "stop sign", "dart": "target", "art": "palette",
    "tennis": "tennis racket", "alarm_clock": "alarm clock", "rice_ball": "rice ball", "mushroom": "red mushroom",
}  # fmt: skip

EMOJI = """
apple green_apple banana lemon tangerine grapes watermelon strawberry cherries peach pear pineapple kiwifruit avocado
tomato eggplant carrot corn hot_pepper broccoli mushroom bread croissant pretzel cheese_wedge hamburger fries pizza
hotdog taco doughnut cookie cake birthday cupcake icecream lollipop honey_pot popcorn coconut rice_ball egg
dog cat mouse hamster rabbit fox_face bear panda_face koala tiger lion_face cow pig frog monkey_face chicken penguin
baby_chick owl wolf unicorn_face bee bug butterfly snail ladybug spider turtle octopus crab tropical_fish whale
evergreen_tree deciduous_tree palm_tree cactus tulip rose sunflower four_leaf_clover maple_leaf cherry_blossom
oncoming_automobile oncoming_bus oncoming_taxi rocket boat house tent sunny full_moon crescent_moon star zap fire
droplet snowman_without_snow umbrella rainbow earth_americas balloon hourglass alarm_clock cloud
soccer basketball tennis football 8ball gift teddy_bear guitar trumpet bell key lock bulb closed_book scissors crown gem
tophat robot_face ghost alien skull jack_o_lantern heart blue_heart slightly_smiling_face sunglasses dart art
octagonal_sign trophy candle magnet camera
""".split()

COMBINATIONS = list(itertools.product(range(len(EMOJI)), range(len(BACKGROUNDS))))


def caption(emoji: int, background: int) -> str:
    """Caption of a combination: 'red apple on a blue background'."""
    name = NAMES.get(EMOJI[emoji], EMOJI[emoji].replace("_", " "))
    return f"{name} on a {list(BACKGROUNDS)[background]} background"
