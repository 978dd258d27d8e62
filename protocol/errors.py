"""The errors that a user can cure; each is one line saying what, where and the cure.

FedURWKVError
├── SettingsError    the words were wrong: exit code 2
├── DataError        an image, a mask, a site or a data set was wrong
├── ModelError       the file of a model was missing or wrong, or could not be made into another
├── RoundError       a federated round could not be completed
├── RunError         the folder of a run was missing, taken, torn or of another version
│   └── StoppedError the user stopped the work
├── PolicyError      the hospital's policy does not allow what was asked of it
│   └── BudgetError  the privacy that a study or a hospital grants is spent
├── LedgerError      a privacy ledger was missing, damaged or changed by another hand
└── DeploymentError  a key, a certificate, an address or a service of the deployment was missing or wrong
"""


class FedURWKVError(Exception):
    """An error that a user can cure. The command line prints it as one line and exits with `exit_code`."""

    exit_code = 1


class SettingsError(FedURWKVError):
    """A setting or an argument is unknown, mistyped or impossible."""

    exit_code = 2


class DataError(FedURWKVError):
    """An image, a mask, a site folder or a data set cannot be used as it is."""


class ModelError(FedURWKVError):
    """The file of a model cannot be used, or not be written as another kind of file."""


class RoundError(FedURWKVError):
    """A federated round could not be completed, for example for want of a quorum."""


class RunError(FedURWKVError):
    """The folder of a run is missing, already taken, torn, or of another version."""


class StoppedError(RunError):
    """The user stopped the work; the message says how to go on."""


class PolicyError(FedURWKVError):
    """The hospital's own policy does not allow what was asked of it."""


class BudgetError(PolicyError):
    """A round would pass a limit of what a study, or all studies, may cost a patient; so would every later one."""


class LedgerError(FedURWKVError):
    """A privacy ledger is missing, damaged, or was changed by another hand: nothing may be spent on it."""


class DeploymentError(FedURWKVError):
    """A key, a certificate, an address or a service of the deployment is missing or wrong."""
