"""Asks Scopeward, the policy decision service for OAuth scopes.

Three questions: `expand_registration_scopes` when a client registers, `check_authorize_scopes` at the authorize endpoint,
`check_token_scopes` at the token endpoint. A denial is raised as `Denied`, with the OAuth error to send; that there is no answer as
`Unavailable`, which fails the request too.

Adapters for auth servers are in `scopeward.mcp`, `scopeward.fastmcp`, `scopeward.authlib` and `scopeward.django`.
"""

from ._async_client import AsyncClient
from ._client import Client
from .answers import (
    AddedScope,
    AudienceDescription,
    AudienceGrant,
    AuthorizeAnswer,
    AuthorizeQuestion,
    ClientSource,
    OAuthClient,
    RegistrationAnswer,
    TokenAnswer,
    TokenGrant,
    TokenQuestion,
)
from .audit import AuditEvent, AuditEventKind, AuditGap, Cursor, FileCursor, LogOpened, PolicyChange, Position
from .errors import AuditStopped, Denied, PolicyVersion, RefusedScope, ScopewardError, Unavailable
from .status import AudienceStatus, Condition, Finding, PolicyAttempt, PolicyStatus

__all__ = [
    "AddedScope",
    "AsyncClient",
    "AudienceDescription",
    "AudienceGrant",
    "AudienceStatus",
    "AuditEvent",
    "AuditEventKind",
    "AuditGap",
    "AuditStopped",
    "AuthorizeAnswer",
    "AuthorizeQuestion",
    "Client",
    "ClientSource",
    "Condition",
    "Cursor",
    "Denied",
    "FileCursor",
    "Finding",
    "LogOpened",
    "OAuthClient",
    "PolicyAttempt",
    "PolicyChange",
    "PolicyStatus",
    "PolicyVersion",
    "Position",
    "RefusedScope",
    "RegistrationAnswer",
    "ScopewardError",
    "TokenAnswer",
    "TokenGrant",
    "TokenQuestion",
    "Unavailable",
]
