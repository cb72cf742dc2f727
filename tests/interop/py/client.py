"""A plain libp2p client, written with py-libp2p: no credential, no gate of identity.

    python client.py MULTIADDR/p2p/PEER

Prints one JSON object a line for whatever happens, and goes on until its input ends. It asks who
the other side is (identify), pings it, and every 300 ms publishes an envelope on the topic `open`
and one on `closed`, both of which it also listens to.
"""

import json
import logging
import sys
import time

import cbor2
import multiaddr
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY, parse_identify_response
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

TOPICS = ("open", "closed")
logging.disable(logging.CRITICAL)


def say(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


def envelope(text):
    """docs/reference/envelope.cddl: deterministic CBOR of maps with ascending integer keys."""
    now = time.time_ns()
    return cbor2.dumps(
        {1: 2, 2: now // 1_000_000, 3: now // 1_000, 4: None, 5: [{1: text.encode()}]},
        canonical=True,
    )


async def listen(subscription, topic):
    while True:
        message = await subscription.get()
        say("message", topic=topic, **{"from": str(ID(message.from_id))}, data=message.data.hex())


async def publish(pubsub):
    number = 0
    while True:
        number += 1
        for topic in TOPICS:
            try:
                await pubsub.publish(topic, envelope(f"py {topic} {number}"))
            except Exception as error:  # said, and tried again
                say("not-published", topic=topic, error=repr(error))
        await trio.sleep(0.3)


async def subscriptions(pubsub, peer):
    """What the other side listens to, whenever that changes."""
    known = None
    while True:
        topics = sorted(topic for topic, peers in pubsub.peer_topics.items() if peer in peers)
        if topics != known:
            known = topics
            say("subscriptions", topics=topics)
        await trio.sleep(0.1)


async def greet(host, peer):
    stream = await host.new_stream(peer, [IDENTIFY])
    answer = bytearray()
    while chunk := await stream.read(65536):
        answer += chunk
        try:
            said = parse_identify_response(bytes(answer))
        except Exception:  # not all of it yet
            continue
        say("identify", agent=said.agent_version, protocols=list(said.protocols))
        break
    await stream.close()
    say("ping", ms=(await PingService(host).ping(peer))[0] / 1000)


async def until_input_ends(scope):
    await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
    scope.cancel()


async def main(address):
    info = info_from_p2p_addr(multiaddr.Multiaddr(address))
    host = new_host(key_pair=create_new_key_pair())
    router = GossipSub(
        protocols=[TProtocol("/meshsub/1.1.0"), TProtocol("/meshsub/1.0.0")],
        degree=3,
        degree_low=2,
        degree_high=4,
        heartbeat_interval=1,
    )
    pubsub = Pubsub(host, router, strict_signing=True)
    async with host.run(listen_addrs=[]), trio.open_nursery() as nursery:
        nursery.start_soon(until_input_ends, nursery.cancel_scope)
        async with background_trio_service(pubsub), background_trio_service(router):
            await pubsub.wait_until_ready()
            say("started", peer=str(host.get_id()))
            for topic in TOPICS:
                nursery.start_soon(listen, await pubsub.subscribe(topic), topic)
            try:
                with trio.fail_after(20):
                    await host.connect(info)
                    say("connected", peer=str(info.peer_id))
                    await greet(host, info.peer_id)
            except Exception as error:
                say("failed", error=repr(error))
            nursery.start_soon(subscriptions, pubsub, info.peer_id)
            nursery.start_soon(publish, pubsub)
            await trio.sleep_forever()


trio.run(main, sys.argv[1])
