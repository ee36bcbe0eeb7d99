"""Signatures, verified by the reference library of Standard Webhooks."""

import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.webhooks.signatures import is_secret, new_secret, sign_headers

BODY = '{"a": "ü", "n": 12345678901234567890}'.encode()


def test_the_reference_library_takes_our_signature() -> None:
    secret = new_secret()
    assert Webhook(secret).verify(BODY, sign_headers("msg_1", int(time.time()), BODY, [secret])) == {
        "a": "ü",
        "n": 12345678901234567890,
    }


def test_during_a_rotation_both_secrets_verify_and_no_third() -> None:
    new, old = new_secret(), new_secret()
    headers = sign_headers("msg_1", int(time.time()), BODY, [new, old])
    for secret in (new, old):
        Webhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers)


@pytest.mark.parametrize("change", ["webhook-id", "webhook-timestamp", "body"])
def test_whatever_is_changed_on_the_way_fails(change: str) -> None:
    secret = new_secret()
    headers = sign_headers("msg_1", int(time.time()), BODY, [secret])
    body = BODY + b" " if change == "body" else BODY
    if change == "webhook-id":
        headers[change] = "msg_2"
    if change == "webhook-timestamp":
        headers[change] = str(int(headers[change]) - 1)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers)


def test_the_specifications_own_example() -> None:
    """https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"""
    headers = sign_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_without_a_secret_there_is_no_signature() -> None:
    assert sign_headers("msg_1", 1, BODY, []).keys() == {"webhook-id", "webhook-timestamp"}


@pytest.mark.parametrize(
    ("text", "good"),
    [
        pytest.param(new_secret(), True, id="a new one"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", True),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", False),
        ("whsec_c2hvcnQ=", False),
        ("whsec_" + "A" * 88, False),
        ("whsec_not base64 at all, not at all, no", False),
        ("whsec_ü" + "A" * 40, False),
        ("", False),
    ],
)
def test_a_secret_is_24_to_64_bytes_in_base64(text: str, good: bool) -> None:
    assert is_secret(text) is good
