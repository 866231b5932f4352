"""Configuration file, environment and command line in, checked settings out."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from introspan_collector.aggregate.settings import AggregateSettings
from introspan_collector.archive.settings import ArchiveSettings
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.mistakes import check_finite, check_numbers, explain
from introspan_collector.notify.settings import NotifySettings
from introspan_collector.probe.settings import ProbeSettings

ENVIRONMENT_PREFIX = "INTROSPAN_COLLECTOR_"
# Kubernetes adds such variables to every pod of a namespace, for each Service in it: those of a Service named
# introspan-collector are no settings.
_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_MIB = 2**20
_HOUR_SECONDS = 3600.0


class ConfigurationError(ValueError):
    """A setting that cannot be used; the text names key, value and remedy, one setting a line."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AcceptSettings(_Section):
    """What the collector takes in, and from whom."""

    max_request_bytes: int = Field(default=4 * _MIB, ge=65_536, le=16 * _MIB)
    max_pending_bytes: int = Field(default=64 * _MIB, ge=1)
    max_resident_bytes: int = Field(default=2048 * _MIB, ge=64 * _MIB)
    max_producers: int = Field(default=10_000, ge=1)
    producer_bytes_per_second: float = Field(default=32.0 * _MIB, gt=0)
    producer_burst_bytes: float = Field(default=64.0 * _MIB, gt=0)
    bearer_token_file: Path | None = None
    tls_certificate_file: Path | None = None
    tls_key_file: Path | None = None
    tls_client_ca_file: Path | None = None
    max_sampling_probability: float | None = Field(default=None, ge=0, le=1)
    capture_off: bool = False

    @model_validator(mode="after")
    def _key_and_certificate(self) -> "AcceptSettings":
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file must be given together")
        return self


class LogSettings(_Section):
    """How long accepted batches are kept for the stages that read them, and how durable an answer is."""

    commit: Literal["group", "interval"] = "group"
    commit_interval_seconds: float = Field(default=0.1, gt=0, le=60)
    segment_bytes: int = Field(default=64 * _MIB, ge=_MIB)
    max_bytes: int = Field(default=4096 * _MIB, ge=2 * _MIB)
    max_age_seconds: float = Field(default=24 * _HOUR_SECONDS, gt=0)

    @model_validator(mode="after")
    def _several_segments(self) -> "LogSettings":
        if self.max_bytes < 2 * self.segment_bytes:
            raise ValueError("max_bytes must be at least twice segment_bytes: whole segments are deleted")
        return self


class CheckpointSettings(_Section):
    """How often the state of the aggregates is saved."""

    interval_seconds: float = Field(default=10.0, gt=0)


class Settings(BaseSettings):
    """Everything the collector can be told."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__"
    )

    data: Path = Path("introspan-data")
    grpc: str = "127.0.0.1:4317"
    http: str = "127.0.0.1:9464"
    http_token_file: Path | None = None
    trace_url: str = ""
    accept: AcceptSettings = AcceptSettings()
    log: LogSettings = LogSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    aggregate: AggregateSettings = AggregateSettings()
    archive: ArchiveSettings = ArchiveSettings()
    detect: DetectSettings = DetectSettings()
    notify: NotifySettings = NotifySettings()
    canary: ProbeSettings = ProbeSettings()

    @model_validator(mode="before")
    @classmethod
    def _no_words_for_numbers(cls, given: dict[str, Any]) -> dict[str, Any]:  # Any: as it was read
        check_numbers(given, {name: field.default for name, field in cls.model_fields.items()})
        return given

    @model_validator(mode="after")
    def _finite(self) -> "Settings":
        check_finite(self)
        return self

    @field_validator("grpc", "http")
    @classmethod
    def _address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError("must be host:port, for example 127.0.0.1:4317")
        return value

    @field_validator("trace_url")
    @classmethod
    def _trace(cls, value: str) -> str:
        if value and not (value.startswith(("http://", "https://")) and "{trace_id}" in value):
            raise ValueError("must be empty or http(s)://… with {trace_id} in it")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 pydantic-settings calls with these names
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options of the command line win over the environment, and that over the file."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


def load_settings(
    config_file: Path | None, options: Mapping[str, object], environment: Mapping[str, str] | None = None
) -> Settings:
    """Settings from options (None = not given), else from INTROSPAN_COLLECTOR_*, else from a TOML file.

    Raises ConfigurationError.
    """
    _check_environment(os.environ if environment is None else environment)

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=config_file)

    given: dict[str, Any] = {k: v for k, v in options.items() if v is not None}  # Any: pydantic checks it
    try:
        if config_file is not None:
            with config_file.open("rb"):
                pass
        return FromFile(**given)
    except OSError as error:
        raise ConfigurationError(f"--config {config_file} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"--config {config_file} is not TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"--config {config_file} is not TOML: {error}; save it in UTF-8") from error
    except SettingsError as error:
        raise ConfigurationError(
            f"the environment cannot be used: {error}; set single keys, such as {ENVIRONMENT_PREFIX}LOG__MAX_BYTES"
        ) from error
    except ValidationError as error:
        raise ConfigurationError(explain(error)) from error


def _check_environment(environment: Mapping[str, str]) -> None:
    # pydantic-settings overlooks variables that match no key; a typing mistake must not go unnoticed.
    for name in environment:
        if name.startswith(ENVIRONMENT_PREFIX) and not _SERVICE_LINK.fullmatch(name):
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")[0]
            if key not in Settings.model_fields:
                raise ConfigurationError(
                    f"{name} is not a setting; known are {', '.join(Settings.model_fields)}"
                )
