"""The 20 superclasses of CIFAR-100, which its files hold as coarse labels."""

from lsmha_keras.errors import InputError, nearest

_CLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}

# Dict from a superclass to the list of its five classes, in the order of the files.
SUPERCLASSES = {name: classes.split() for name, classes in _CLASSES.items()}


def superclass_labels(class_names, superclass):
    """Finds the classes of one superclass of CIFAR-100.

    Args:
        class_names: list of str, the classes of a model or dataset, CIFAR-100's among them.
        superclass: str, such as `"flowers"`.

    Returns:
        A list of five ints, indices into `class_names`.

    Raises:
        ValueError: if there is no such superclass (the nearest is named), or a class is missing.

    Example:
        >>> superclass_labels(sum(SUPERCLASSES.values(), []), "fish")
        [5, 6, 7, 8, 9]
    """
    if superclass not in SUPERCLASSES:
        raise InputError(
            f"CIFAR-100 has no such superclass{nearest(superclass, SUPERCLASSES)}; it has "
            f"{', '.join(SUPERCLASSES)}. Received: superclass={superclass!r}"
        )
    classes = SUPERCLASSES[superclass]
    if missing := [name for name in classes if name not in (class_names or ())]:
        raise InputError(
            f"The superclasses are those of CIFAR-100. Received: classes without {missing[0]!r}"
        )
    return [class_names.index(name) for name in classes]
