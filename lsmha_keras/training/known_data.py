"""What cards say about well-known datasets, and the metadata of cards."""

import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class KnownData:
    """What a card says about a well-known dataset.

    Attributes:
        title: str, its full name.
        hub: str or `None`, its name on Hugging Face.
        citation: str.
        link: str, its page.
        licence: str, a sentence.
    """

    title: str
    hub: str | None
    citation: str
    link: str
    licence: str


_CIFAR = (
    "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    "https://www.cs.toronto.edu/~kriz/cifar.html",
    "The authors of the data ask to cite their report and name no licence.",
)

KNOWN_DATA = {
    "cifar10": KnownData("CIFAR-10", "uoft-cs/cifar10", f"CIFAR-10: {_CIFAR[0]}", *_CIFAR[1:]),
    "cifar100": KnownData("CIFAR-100", "uoft-cs/cifar100", f"CIFAR-100: {_CIFAR[0]}", *_CIFAR[1:]),
    "digits": KnownData(
        "Optical Recognition of Handwritten Digits",
        None,
        "Optical Recognition of Handwritten Digits: Alpaydin and Kaynak, UCI Machine Learning "
        "Repository, 1998 (the copy in scikit-learn)",
        "https://doi.org/10.24432/C50P49",
        "The data is under CC BY 4.0.",
    ),
    "fashion_mnist": KnownData(
        "Fashion-MNIST",
        "zalando-datasets/fashion_mnist",
        "Fashion-MNIST: Xiao, Rasul and Vollgraf, 2017",
        "https://arxiv.org/abs/1708.07747",
        "The data is under the MIT licence.",
    ),
    "trec": KnownData(
        "TREC, coarse labels",
        "CogComp/trec",
        "Question types: Li and Roth, Learning Question Classifiers, 2002",
        "https://cogcomp.seas.upenn.edu/Data/QA/QC/",
        "For the licence of the data see its page.",
    ),
    "trec_fine": KnownData(
        "TREC, fine labels",
        "CogComp/trec",
        "Question types: Li and Roth, Learning Question Classifiers, 2002",
        "https://cogcomp.seas.upenn.edu/Data/QA/QC/",
        "For the licence of the data see its page.",
    ),
    "sst2": KnownData(
        "SST-2",
        "stanfordnlp/sst2",
        "Stanford Sentiment Treebank: Socher et al., Recursive Deep Models for Semantic "
        "Compositionality Over a Sentiment Treebank, 2013",
        "https://nlp.stanford.edu/sentiment/",
        "For the licence of the data see its page.",
    ),
    "mnist": KnownData(
        "MNIST",
        "ylecun/mnist",
        "MNIST: LeCun, Cortes and Burges, 1998",
        "http://yann.lecun.com/exdb/mnist/",
        "For the licence of the data see its page.",
    ),
}


def card_metadata(results, task="image-classification"):
    """Returns the YAML front matter of a card, which Hugging Face reads.

    Args:
        results: dict, as in `results.json`.
        task: str, what Hugging Face calls it.

    Returns:
        str, from `---` to `---`.

    Example:

    ```python
    print(card_metadata(result.results))
    ```
    """
    known = KNOWN_DATA.get(results["dataset"])
    hub = known.hub if known else None
    title = known.title if known else results["dataset"]
    lines = ["---", "library_name: keras-hub", "license: apache-2.0"]
    model = "vision-transformer" if task == "image-classification" else "transformer"
    lines += [f"pipeline_tag: {task}"]
    lines += ["tags:", *(f"- {tag}" for tag in ("lsmha-keras", "keras", task, model))]
    lines += ["datasets:", f"- {hub}"] if hub else []
    lines += ["metrics:", "- accuracy", "model-index:", f"- name: {json.dumps(results['name'])}"]
    lines += ["  results:", "  - task:", f"      type: {task}", "    dataset:"]
    # Every JSON string is a YAML string, so this quotes any name.
    lines += [f"      type: {json.dumps(hub or results['dataset'])}"]
    lines += [f"      name: {json.dumps(title)}", f"      split: {json.dumps(results['split'])}"]
    lines += ["    metrics:"]
    measured = {"accuracy": "top-1 accuracy", "top5_accuracy": "top-5 accuracy"}
    if results["top5_accuracy"] == 1:  # as on the card
        del measured["top5_accuracy"]
    for kind, name in measured.items():
        lines += [f"    - type: {'accuracy' if kind == 'accuracy' else 'top_5_accuracy'}"]
        lines += [f"      name: {name}", f"      value: {results[kind]}"]
    return "\n".join([*lines, "---", ""])
