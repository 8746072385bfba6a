"""Jinja2 templates of a folder; nothing in them may be undefined."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import jinja2
import yaml

from pipeline.errors import UsageError

BANNER = "Rendered by `nox -s render` from matrix.yaml and {}; change those, not this file."


class Templates:
    """The templates of a folder; an undefined variable is an error that names the template."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder),
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
            autoescape=jinja2.select_autoescape(("html.j2",), default_for_string=False),
        )
        self._environment.filters["yaml"] = _yaml_scalar

    def render(self, template_name: str, /, **context: object) -> bytes:
        try:
            template = self._environment.get_template(template_name)
            banner = BANNER.format(f"templates/{template_name}")
            text = template.render({"banner": banner, **context})
        except jinja2.TemplateNotFound as error:
            raise UsageError(
                f"there is no template {error.name}",
                where=str(self.folder),
                hint="a chip's `family` names its runtime template",
            ) from error
        except jinja2.TemplateSyntaxError as error:
            raise UsageError(
                f"template error: {error.message}", where=f"{error.filename}:{error.lineno}"
            ) from error
        except jinja2.UndefinedError as error:
            raise UsageError(
                f"template variable: {error.message}",
                where=f"{self.folder.name}/{template_name}",
                hint="give it in matrix.yaml or take it out of the template",
            ) from error
        return text.encode()


@lru_cache(maxsize=None, typed=True)  # the same few words stand in hundreds of files
def _yaml_scalar(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
