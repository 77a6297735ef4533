"""The daemon: one socket to Alpaca in, per-symbol streams and the shared cache on Redis out.

```
 operators ──SADD──► quotes:symbols ─┐
 strategies ─lease─► quotes:interest ┴─► subscriptions ──plan──► feed ◄──frames──► Alpaca
                                                                  │ quotes
                                                                  ▼
                                       publisher: intake ─► stamper ─► outbox ──append.lua──► Redis

 app wires the parts and ends them in order · turn keeps a second daemon waiting · settings is what one may choose
 watching tells: metrics, health, status, events · commands is the command line around it all
```

Brains (no async, no sockets, no clock): feed.messages, feed.codes, feed.codec, feed.session, feed.backoff;
subscriptions.plan, subscriptions.desired, subscriptions.book; publisher.intake, publisher.stamper,
publisher.outbox, publisher.displaced, publisher.calls, publisher.ledger; resp and histogram. The others are thin
shells around them. This module imports nothing, so that reading one part loads no other.
"""
