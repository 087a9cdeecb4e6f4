"""Files for Kubernetes, hosted platforms and hosted CI: settings and paths in them exist, and linters agree."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from headrace.config import load
from headrace.config.fields import fields_of, names_of_files
from headrace.service.settings import SECTIONS
from tests.outside.tools import ACTIONLINT, IN_CI, KUBERNETES_VALIDATE, run
from tests.test_docs import MAKE_TARGETS

ROOT: Final = Path(__file__).parents[2]
KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
PLATFORMS: Final = ROOT / "deploy" / "platforms"
WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FIELDS: Final = tuple(fields_of(SECTIONS).values())
KNOWN: Final = {name for field in FIELDS for name in field.setting.env} | set(names_of_files(FIELDS))


def resources() -> dict[str, dict[str, Any]]:
    """Return the resources that Kustomize would apply, by kind (services: by name)."""
    files = yaml.safe_load((KUBERNETES / "kustomization.yml").read_text())["resources"]
    found = [each for file in files for each in yaml.safe_load_all((KUBERNETES / file).read_text())]
    return {each["metadata"]["name"] if each["kind"] == "Service" else each["kind"]: each for each in found}


def test_resources_of_kubernetes_belong_together() -> None:
    found = resources()
    servers = found["StatefulSet"]["spec"]
    labels = servers["template"]["metadata"]["labels"]
    for selector in (
        servers["selector"]["matchLabels"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector == labels
    assert found["headrace"]["spec"]["selector"] == found[servers["serviceName"]]["spec"]["selector"] == labels
    assert (
        found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["StatefulSet"]["metadata"]["name"]
    )
    (server,) = servers["template"]["spec"]["containers"]
    assert server["envFrom"][0]["configMapRef"]["name"] == found["ConfigMap"]["metadata"]["name"]
    volumes = {each["name"] for each in servers["template"]["spec"]["volumes"]} | {
        each["metadata"]["name"] for each in servers["volumeClaimTemplates"]
    }
    assert {each["name"] for each in server["volumeMounts"]} == volumes


def test_settings_of_kubernetes_are_accepted(tmp_path: Path) -> None:
    env = dict(resources()["ConfigMap"]["data"])
    values = {"jwt_secret": "x" * 32, "database_url": "postgresql://u@h/d", "redis_url": "redis://h"}
    for name, value in values.items():
        (tmp_path / name).write_text(value)
        env[f"{name.upper()}_FILE"] = str(tmp_path / name)
    assert load(SECTIONS, env=env | {"SERVER_ID": "headrace-0"}, dotenv=None, toml=None).warnings == ()


def test_a_pod_has_longer_to_end_than_the_server_takes() -> None:
    pod = resources()["StatefulSet"]["spec"]["template"]["spec"]
    waits_s = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= waits_s + 30


@pytest.mark.skipif(
    not (IN_CI or KUBERNETES_VALIDATE), reason="no kubernetes-validate on PATH: deploy/kubernetes is not validated"
)
@pytest.mark.parametrize("file", ["settings.yml", "servers.yml", "autoscaler.yml"])
def test_resources_pass_the_schemas_of_kubernetes(file: str) -> None:
    run(KUBERNETES_VALIDATE, "--strict", KUBERNETES / file)


def test_settings_and_paths_for_platforms_exist() -> None:
    render = yaml.safe_load((PLATFORMS / "render.yaml").read_text())["services"]
    fly = tomllib.loads((PLATFORMS / "fly.toml").read_text())
    railway = json.loads((PLATFORMS / "railway.json").read_text())
    heroku = yaml.safe_load((PLATFORMS / "heroku.yml").read_text())
    names = {variable["key"] for service in render for variable in service.get("envVars", [])}
    names |= set(fly["env"]) | set(heroku["setup"]["config"])
    assert names <= KNOWN
    docker = [render[0]["dockerfilePath"], fly["build"]["dockerfile"], railway["build"]["dockerfilePath"]]
    assert {str(Path(path)) for path in [*docker, *heroku["build"]["docker"].values()]} == {"deploy/Dockerfile"}
    checks = {
        render[0]["healthCheckPath"],
        fly["http_service"]["checks"][0]["path"],
        railway["deploy"]["healthcheckPath"],
    }
    assert checks == {"/health/ready"}
    assert {render[1]["maxmemoryPolicy"]} == {"noeviction"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_calls_what_exists(workflow: Path) -> None:
    text = workflow.read_text()
    assert set(re.findall(r"run: make (\S+)", text)) <= MAKE_TARGETS
    for path in re.findall(r"(?:-f|file:) (deploy/\S+)", text):
        assert (ROOT / path).exists()
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


@pytest.mark.skipif(not ACTIONLINT, reason="no actionlint on PATH or in .tools: the workflows are not linted")
def test_workflows_pass_actionlint() -> None:
    assert run(ACTIONLINT, *WORKFLOWS, folder=ROOT) == ""
