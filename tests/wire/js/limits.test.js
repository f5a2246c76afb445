// The default limits as a client meets them: frames, rate, subscriptions.

import assert from 'node:assert/strict';

import { mint, users } from './support/server.js';
import { Raw } from './support/stomp.js';
import { suite } from './support/suite.js';

const wire = suite({ 'limits.messages_per_minute': 60, 'limits.messages_burst': 20 });
const { it, sessions } = wire;

/** A SEND of `size` bytes from command to NUL, both counted; the padding is white space in the JSON. */
function sendOf(size, conversation, content) {
  const head = `SEND\ndestination:/app/conversations/${conversation}/send\nreceipt:sized\n\n`;
  const body = `{"content":"${content}"`;
  return `${head}${body}${' '.repeat(size - head.length - body.length - 2)}}\0`;
}

it('a frame of 65,536 bytes passes', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const raw = await Raw.connect(wire.server, alice);
  const frame = sendOf(65_536, conversation, 'large');
  assert.equal(Buffer.byteLength(frame), 65_536);
  raw.send(frame);
  const receipt = await raw.frames.next();
  assert.equal(receipt.command, 'RECEIPT', receipt.headers.message);
  assert.equal((await wire.server.history(bob, conversation))[0].content, 'large');
  raw.close();
});

it('a larger one is an ERROR that names the limit, and close 1009', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  for (const size of [65_537, 65_600, 200_000]) {
    const raw = await Raw.connect(wire.server, alice);
    raw.send(sendOf(size, conversation, 'too large'));
    const error = await raw.frames.next();
    assert.equal(error.command, 'ERROR');
    assert.match(error.headers.message, /65,?536/);
    assert.equal((await raw.closes.next()).code, 1009);
  }
  assert.deepEqual(await wire.server.history(bob, conversation), []);
});

it('a content-length above the limit is refused before the body arrives', async () => {
  const [alice] = users(1);
  for (const length of ['65537', '1000000000000', '18446744073709551616', '99999999999999999999999999']) {
    const raw = await Raw.connect(wire.server, alice);
    raw.send(`SEND\ndestination:/app/send\ncontent-length:${length}\n\n`);
    assert.equal((await raw.frames.next()).command, 'ERROR', length);
    await raw.closes.next();
  }
});

it('a user may send 20 messages at once, then learns when to retry, over STOMP and REST', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const [one, two] = [await sessions.of(alice), await sessions.of(alice)];
  const [first, second] = [await one.subscribe('/user/queue/errors'), await two.subscribe('/user/queue/errors')];
  const to = `/app/conversations/${conversation}/send`;
  // The rate limit is the user's: over two sessions and REST.
  for (let index = 0; index < 10; index += 1) await one.say(conversation, `one ${index}`);
  for (let index = 0; index < 8; index += 1) await two.say(conversation, `two ${index}`);
  for (let index = 0; index < 2; index += 1) await wire.server.post(alice, conversation, `rest ${index}`);
  let passed = 20;
  // One token refills each second, so a busy machine may have earned a few on the way.
  const exhaust = async (send) => {
    for (let index = 0; index < 20; index += 1) {
      const refusal = await send();
      if (refusal) return refusal;
      passed += 1;
    }
    return assert.fail('never refused');
  };
  const overStomp = async (session, inbox) => {
    session.send(to, { content: 'more' }, { receipt: 'counted' });
    const answered = new Promise((resolve) => session.client.watchForReceipt('counted', () => resolve(undefined)));
    return Promise.race([answered, inbox.next()]);
  };
  for (const [session, inbox] of [[one, first], [two, second]]) {
    const message = await exhaust(() => overStomp(session, inbox));
    const refusal = JSON.parse(message.body);
    assert.equal(refusal.code, 'rate_limited');
    assert.equal(refusal.receipt, 'counted');
    assert.ok(Number(message.headers['retry-after']) >= 1, message.headers['retry-after']);
  }
  const response = await exhaust(async () => {
    const answer = await wire.server.rest(mint(alice), 'POST', `/conversations/${conversation}/messages`, { content: 'x' });
    return answer.status === 201 ? undefined : answer;
  });
  assert.equal(response.status, 429);
  assert.equal(response.body.code, 'rate_limited');
  assert.ok(Number(response.headers.get('retry-after')) >= 1);
  assert.equal((await wire.server.history(bob, conversation)).length, passed);
  await wire.server.post(bob, conversation, 'another user has another rate limit');
});

it('more subscriptions than allowed are an ERROR', async () => {
  const [alice] = users(1);
  const raw = await Raw.connect(wire.server, alice);
  for (let id = 0; id < 256; id += 1) raw.send(`SUBSCRIBE\nid:${id}\ndestination:/topic/t${id}\n\n\0`);
  raw.send('SEND\ndestination:/app/heartbeat\nreceipt:all\n\n\0');
  assert.equal((await raw.frames.next()).command, 'RECEIPT');
  raw.send('SUBSCRIBE\nid:256\ndestination:/topic/one-too-many\n\n\0');
  const error = await raw.frames.next();
  assert.equal(error.command, 'ERROR');
  assert.equal((await raw.closes.next()).code, 1008);
});

it('content has at most 4,000 characters, however many bytes they take', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const route = `/conversations/${conversation}/messages`;
  for (const character of ['x', 'é', '🎉']) {
    const post = (count) => wire.server.rest(mint(alice), 'POST', route, { content: character.repeat(count) });
    assert.equal((await post(4_000)).status, 201, character);
    const refused = await post(4_001);
    assert.equal(refused.status, 400, character);
    assert.equal(refused.body.code, 'content_too_long');
  }
});
