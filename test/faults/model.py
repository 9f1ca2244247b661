"""What stands in the groups of a queue, as one who sees all transactions would keep it.

It knows what each open transaction has done, so that it can be told what was rolled
back; and holds every message that is handed out by groups against what is promised:
it must be among the first that stand in its group.

A message stands in its group from when its send has returned until its removal is
committed.  One that an open transaction moves to another group stands in both, for
all but that transaction, and so does one that it moves on in the ones between:
a part of the transaction may be rolled back.  For the one that has moved or
removed it itself it is gone from there.  It does not matter what a snapshot shows.
"""
from dataclasses import dataclass, replace

from groups import Failed


class Transaction:
    """One that is open, maybe prepared"""

    def __init__(self):
        self.undo = []      # for each thing it has done, what to call when that is rolled back


@dataclass(frozen=True)
class Message:
    group: str
    former: tuple = ()                  # groups that an open transaction has taken it from
    removed: bool = False               # by an open transaction
    by: Transaction | None = None       # the open transaction that has moved or removed it
    sender: Transaction | None = None   # the open transaction that has sent it
    reads: int = 0                      # how often it was handed out

    def stands_in(self, group, reader, committed=False):
        """Whether it does for this transaction; None is one that has done nothing yet.  If only what is
        committed counts, what other open transactions have done does not."""
        if committed and self.sender is not None and self.sender is not reader:
            return False
        if committed and self.by is not None and self.by is not reader:
            return group == (self.former or (self.group,))[0]
        if self.by is not None and self.by is reader:
            return self.group == group and not self.removed
        return self.group == group or group in self.former


class Model:
    def __init__(self, committed=False):
        self.committed = committed  # the promise is about what is committed only
        self.messages = {}      # by msg_id
        self.held = set()       # the ids of those that were handed out by groups, with a lease
        self.max_reads = None   # with which a message is dead, and moved in the order of its group; None: never

    def known(self, msg_id):
        if msg_id not in self.messages:
            raise Failed("there is a message %d that was never sent, or has gone" % msg_id)
        return self.messages[msg_id]

    # What is done.  Without a transaction it is committed at once.

    def _change(self, transaction, msg_id, message):
        """When it is rolled back the message is what it was: it is locked meanwhile, so nobody else changes it"""
        if transaction is not None:
            before = self.messages[msg_id]
            transaction.undo.append(lambda: self.messages.update({msg_id: before}))
        self.messages[msg_id] = message

    def send(self, transaction, msg_id, group):
        self.messages[msg_id] = Message(group, sender=transaction)
        if transaction is not None:
            transaction.undo.append(lambda: self._forget(msg_id))

    def remove(self, transaction, msg_id):
        message = self.known(msg_id)
        if transaction is None:
            self._forget(msg_id)
        else:
            self._change(transaction, msg_id, replace(message, removed=True, by=transaction))

    def move(self, transaction, msg_id, group):
        message = self.known(msg_id)
        self.let_go(msg_id)
        if transaction is None:
            self._change(None, msg_id, Message(group, reads=message.reads))
        else:
            former = message.former + (message.group,)
            self._change(transaction, msg_id, replace(message, group=group, former=former, by=transaction))
        self.let_go(msg_id)

    def let_go(self, msg_id):
        """Somebody changes by hand when this message can be had.

        From then on its group can be given to others while some messages of it are held.
        That can't be told by this message alone: one that comes in front of it is handed
        out, too, and goes on being so when this one is gone.  So nobody is taken to hold
        any of the group any more, not even if the change is rolled back.
        """
        message = self.known(msg_id)
        groups = {message.group, *message.former}
        self.held = {held for held in self.held
                     if held in self.messages and self.messages[held].group not in groups}

    def _forget(self, msg_id):
        del self.messages[msg_id]
        self.held.discard(msg_id)

    def forget_all(self):
        self.messages.clear()
        self.held.clear()

    # How transactions end

    def commit(self, transaction):
        for msg_id, message in list(self.messages.items()):
            if message.by is transaction and message.removed:
                self._forget(msg_id)
            elif message.by is transaction:
                self.messages[msg_id] = Message(message.group, reads=message.reads)
            elif message.sender is transaction:
                self.messages[msg_id] = replace(message, sender=None)

    def roll_back(self, transaction, start=0):
        """What it has done from there on"""
        while len(transaction.undo) > start:
            transaction.undo.pop()()

    # What is handed out, or dead

    def count(self, transaction, msg_id):
        message = self.known(msg_id)
        if self.max_reads is not None and message.reads >= self.max_reads:
            raise Failed("%d was handed out after %d times" % (msg_id, message.reads))
        self._change(transaction, msg_id, replace(message, reads=message.reads + 1))

    def bury(self, transaction, msg_id, in_order):
        """It was moved to the dead-letter queue"""
        message = self.known(msg_id)
        if self.max_reads is None or message.reads < self.max_reads:
            raise Failed("%d became a dead letter, and is %s" % (msg_id, message))
        standing = self.standing(message.group, transaction)
        if in_order and standing[0] != msg_id:
            raise Failed("%d of group %s became a dead letter, in which stand %s" % (msg_id, message.group, standing))
        self.remove(transaction, msg_id)

    def standing(self, group, reader):
        """The ids, in order"""
        return sorted(msg_id for msg_id, message in self.messages.items()
                      if message.stands_in(group, reader, self.committed))

    def give(self, transaction, rows, leased):
        """These (msg_id, group) were handed out by one call, in this order"""
        groups = {}
        for msg_id, group in rows:
            message = self.known(msg_id)
            if not message.stands_in(group, transaction):
                raise Failed("%d was given as one of group %s, and is %s" % (msg_id, group, message))
            groups.setdefault(group, []).append(msg_id)
        for group, ids in groups.items():
            self._check_group(transaction, group, ids)
            for msg_id in ids:
                self.count(transaction, msg_id)
                self._hold(transaction, msg_id, leased)

    def _check_group(self, reader, group, ids):
        standing = self.standing(group, reader)
        if ids != standing[:len(ids)]:
            raise Failed("%s were given of group %s, in which stand %s" % (ids, group, standing))
        held = self.held.intersection(standing[len(ids):])
        # Of one that came in front while another consumer took others and has not committed it can't be told
        if held and not self.committed:
            raise Failed("%s were given of group %s, of which somebody holds %s" % (ids, group, sorted(held)))

    def _hold(self, transaction, msg_id, leased):
        """Nobody has held it before, for it was visible.  What a transaction has moved itself counts
        as changed by hand until its end."""
        if leased and not self.messages[msg_id].former:
            self.held.add(msg_id)
            if transaction is not None:
                transaction.undo.append(lambda: self.held.discard(msg_id))
