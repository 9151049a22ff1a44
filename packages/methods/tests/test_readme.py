import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_training_in_the_readme_runs_and_learns():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["losses"].diagnostics["accuracy"] > 0.8  # three classes: chance is 0.33
    assert names["losses"].terms["consistency"] > 0
