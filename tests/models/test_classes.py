"""Which classes a model was trained with, and what they are called."""

import numpy as np
import pytest

from mclr_fast.evaluation.grid_samples import classes_of_grid
from mclr_fast.models import Model, describe
from mclr_fast.models.classes import Classes

NAMES = ["cat", "dog", "Bird", "fish, tropical"]


def test_a_model_that_says_nothing_has_numbers_and_all_of_them():
    classes = Classes.of({}, 3)
    assert classes == Classes([0, 1, 2], ["0", "1", "2"])
    assert classes.said() == {} and not classes.have_names
    assert Model.of(describe({"img_resolution": 8, "img_channels": 1, "label_dim": 2})).classes.trained == [
        0,
        1,
    ]


def test_a_new_networks_are_the_datas():
    """Numbers without images are not trained; a class that the data do not name is called by its number."""
    classes = Classes.of_data(np.array([3, 0, 0]), NAMES, 5)
    assert classes == Classes([0, 3], [*NAMES, "4"])
    assert classes.said() == {"class_names": [*NAMES, "4"], "trained_classes": [0, 3]}
    assert Classes.of(classes.said(), 5) == classes
    assert Classes.of_data(np.array([0, 1]), ["0", "1"], 2).said() == {}
    assert Classes.of_data(np.array([0, 0]), ["cat"], 0).said() == {}  # a network without classes


def test_fine_tuning_adds_the_datas_classes_and_names():
    base = Classes([0, 1], ["cat", "dog", "2", "3"])
    tuned, remarks = base.and_data(np.array([1, 2]), ["0", "dog", "bird"])
    assert tuned == Classes([0, 1, 2], ["cat", "dog", "bird", "3"]) and remarks == []
    tuned, (remark,) = base.and_data(np.array([0, 1]), ["cat", "wolf"])
    assert tuned.names == ["cat", "wolf", "2", "3"]
    assert remark == (
        "1 of 4 classes are called otherwise in the data than in --init's model, such as class 1, wolf there "
        "and dog here: the data's names are kept"
    )


def test_names_are_found_in_any_letters():
    classes = Classes.of({"class_names": NAMES}, 4)
    assert [classes.number(name) for name in ("dog", "bird", "CAT", "fish, tropical")] == [1, 2, 0, 3]
    assert (classes.word(1), Classes.of({}, 2).word(1)) == ("1 dog", "1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dgo", "no class is called 'dgo'; nearest: dog."),
        ("xyz", "no class is called 'xyz'; the model's are 0 cat, 1 dog, 2 Bird, 3 fish, tropical."),
    ],
)
def test_an_unknown_name_has_near_ones(name, words):
    with pytest.raises(ValueError) as error:
        Classes.of({"class_names": NAMES}, 4).number(name)
    assert str(error.value) == words


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"class_names": ["a"]}, '"class_names" must be 2 names'),
        ({"class_names": [1, 2]}, '"class_names" must be 2 names'),
        ({"trained_classes": [0, 2]}, '"trained_classes" must be of 0 to 1, not \\[0, 2\\]'),
        ({"trained_classes": "01"}, '"trained_classes" must be'),
    ],
)
def test_what_is_no_list_of_classes_is_refused(said, words):
    with pytest.raises(ValueError, match=words):
        Classes.of(said, 2)


def test_a_grid_has_the_trained_classes_and_one_column_without_any():
    assert classes_of_grid(Classes([1, 3], ["a", "b", "c", "d"]).trained) == [1, 3]
    assert classes_of_grid(list(range(100, 200))) == list(range(100, 200, 10))
    assert classes_of_grid([]) == [0]
