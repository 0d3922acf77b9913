import pytest


@pytest.mark.slow
def test_neural_collapse_is_the_minimum_only_of_balanced_batches():
    from examples.paper import random_batches

    found = random_batches.main(batches=25)
    for beta in (0, 10):
        assert found[f"gradient/balanced/{beta}"] < 1e-12
        assert abs(found[f"minimum/balanced/{beta}"]) < 1e-8
        assert found[f"gradient/random/{beta}"] > 1e-3
        assert found[f"minimum/random/{beta}"] < -5e-4, "below the bound, which holds for balanced batches"
        noise = found[f"mean_gradient/random/{beta}"] / found[f"gradient/random/{beta}"]
        assert 0.15 < noise < 0.25, "the mean of 25 gradients decreases like that of noise"
