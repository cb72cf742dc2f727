// A plain libp2p client, written with js-libp2p: no credential, no gate of identity.
//
//   node client.mjs MULTIADDR noise|tls
//
// Prints one JSON object a line for whatever happens, and goes on until its input ends. It asks
// who the other side is (identify), pings it, and every 300 ms publishes an envelope on the topic
// `open` and one on `closed`, both of which it also listens to.
import { createLibp2p } from 'libp2p'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { yamux } from '@libp2p/yamux'
import { encode } from 'cborg'
import { multiaddr } from '@multiformats/multiaddr'

const [address, security] = process.argv.slice(2)
const say = (event, more = {}) => console.log(JSON.stringify({ event, ...more }))

// docs/reference/envelope.cddl: deterministic CBOR of maps with ascending integer keys.
let sequence = BigInt(Date.now()) * 1000n
const envelope = (text) => {
  sequence += 1n
  return encode(new Map([
    [1, 2], [2, Date.now()], [3, sequence], [4, null],
    [5, [new Map([[1, new TextEncoder().encode(text)]])]]
  ]))
}

const node = await createLibp2p({
  transports: [tcp()],
  connectionEncrypters: [security === 'tls' ? tls() : noise()],
  streamMuxers: [yamux()],
  services: {
    identify: identify(),
    ping: ping(),
    pubsub: gossipsub({ allowPublishToZeroTopicPeers: true, heartbeatInterval: 200 })
  }
})
process.stdin.on('end', () => process.exit(0)).resume()
const { pubsub } = node.services
pubsub.addEventListener('message', ({ detail }) => {
  say('message', { topic: detail.topic, from: `${detail.from}`, data: Buffer.from(detail.data).toString('hex') })
})
pubsub.addEventListener('subscription-change', ({ detail }) => {
  say('subscriptions', { topics: detail.subscriptions.filter(s => s.subscribe).map(s => s.topic) })
})
node.addEventListener('peer:identify', ({ detail }) => {
  say('identify', { agent: detail.agentVersion, protocols: detail.protocols })
})
node.addEventListener('peer:disconnect', () => say('disconnected'))
await node.start()
say('started', { peer: `${node.peerId}` })
for (const topic of ['open', 'closed']) pubsub.subscribe(topic)
try {
  const connection = await node.dial(multiaddr(address), { signal: AbortSignal.timeout(20_000) })
  say('connected', { peer: `${connection.remotePeer}`, encryption: connection.encryption })
  say('ping', { ms: await node.services.ping.ping(connection.remotePeer) })
} catch (error) {
  say('failed', { error: `${error}` })
}
let number = 0
setInterval(async () => {
  number += 1
  for (const topic of ['open', 'closed']) {
    try {
      await pubsub.publish(topic, envelope(`js ${topic} ${number}`))
    } catch (error) {
      say('not-published', { topic, error: `${error}` })
    }
  }
}, 300)
