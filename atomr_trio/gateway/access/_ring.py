"""All keys and their accounts: who is it, and what has it used?"""

import hmac
from collections.abc import Iterable, Mapping

from ._account import Account, Spent
from ._errors import InvalidApiKey
from ._keys import ApiKey, hashed

__all__ = ["KeyRing"]


class KeyRing:
    """The keys that are valid now, with one account each. A ring without keys lets nobody in.

    Args:
        keys: with names and hashes of their own.
        remembered: what they have spent before, by the keys' ids.
    """

    def __init__(self, keys: Iterable[ApiKey], remembered: Mapping[str, Spent] | None = None) -> None:
        self._accounts: dict[str, Account] = {}
        self.replace(keys)
        for id, spent in (remembered or {}).items():
            if id in self._accounts:
                self._accounts[id].remember(spent)

    def authenticate(self, secret: bytes, unix: float) -> Account:
        """Return the account of the key that has this secret.

        Args:
            secret: as the client sent it.
            unix: the time, in Unix seconds.

        Raises:
            InvalidApiKey: no key has it, or one that has expired.
        """
        given = hashed(secret)
        # Found by the begin of the hash, compared in constant time. What the look-up takes tells of the hash at most.
        account = self._accounts.get(given[:16])
        if account is None or not hmac.compare_digest(given, account.key.sha256):
            raise InvalidApiKey
        if account.key.is_expired(unix):
            raise InvalidApiKey
        return account

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """Let these keys in and no others. Those that stay keep what they have used, under the new limits."""
        before, self._accounts = self._accounts, {}
        for key in keys:
            account = before.get(key.id)
            if account is None:
                account = Account(key)
            else:
                account.change(key)
            self._accounts[key.id] = account

    def spent(self, unix: float) -> dict[str, Spent]:
        """What each key that has a budget has spent, by the keys' ids."""
        return {id: account.spent(unix) for id, account in self._accounts.items() if account.has_budget}

    def __len__(self) -> int:
        return len(self._accounts)
