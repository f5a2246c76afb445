// Reading the history: pages, cursors, and no conversations of other users.

import assert from 'node:assert/strict';

import { mint, users } from './support/server.js';
import { suite } from './support/suite.js';

const wire = suite();
const { it } = wire;

async function conversationOf(count) {
  const [alice, bob] = users(2);
  const id = await wire.server.conversation(alice, bob);
  const messages = [];
  for (let index = 0; index < count; index += 1) messages.push(await wire.server.post(alice, id, `message ${index}`));
  const page = (query = '') => wire.server.expect(200, mint(bob), 'GET', `/conversations/${id}/messages${query}`);
  return { alice, bob, id, messages, page };
}

const ids = (messages) => messages.map((message) => message.id);

it('pages go from the newest to the oldest, whole messages, 20 at a time', async () => {
  const { messages, page } = await conversationOf(45);
  const newestFirst = [...messages].reverse();
  const first = await page();
  assert.deepEqual(first.messages, newestFirst.slice(0, 20));
  assert.equal(first.hasMore, true);
  const second = await page(`?cursor=${encodeURIComponent(first.nextCursor)}`);
  assert.deepEqual(second.messages, newestFirst.slice(20, 40));
  const third = await page(`?cursor=${encodeURIComponent(second.nextCursor)}`);
  assert.deepEqual(third.messages, newestFirst.slice(40));
  assert.equal(third.hasMore, false);
  assert.equal((await page('?limit=100')).messages.length, 45);
  assert.equal((await page('?limit=45')).hasMore, false);
  assert.equal((await page('?limit=44')).hasMore, true);
  assert.equal((await page('?limit=1')).messages.length, 1);
});

it('after= goes forward, oldest first', async () => {
  const { messages, page } = await conversationOf(7);
  const first = await page(`?after=${messages[1].id}&limit=3`);
  assert.deepEqual(ids(first.messages), ids(messages.slice(2, 5)));
  assert.equal(first.hasMore, true);
  const second = await page(`?after=${first.nextCursor}&limit=3`);
  assert.deepEqual(ids(second.messages), ids(messages.slice(5)));
  assert.equal(second.hasMore, false);
  const none = await page(`?after=${messages[6].id}`);
  assert.deepEqual(none.messages, []);
  assert.equal(none.hasMore, false);
  assert.equal(none.nextCursor, messages[6].id);
});

it('any well-formed id is a position, stored or not', async () => {
  const { messages, page } = await conversationOf(3);
  const past = 'c232ab00-9414-11ec-b3c8-9f6bdeced846';
  assert.deepEqual(ids((await page(`?after=${past}`)).messages), ids(messages));
  assert.deepEqual((await page(`?cursor=${past}`)).messages, []);
  const future = 'ffffffff-ffff-1fff-bfff-ffffffffffff';
  assert.equal((await page(`?cursor=${future}`)).messages.length, 3);
  assert.deepEqual((await page(`?after=${future}`)).messages, []);
});

it('an empty conversation has an empty history', async () => {
  const { page } = await conversationOf(0);
  const empty = await page();
  assert.deepEqual(empty.messages, []);
  assert.equal(empty.hasMore, false);
});

it('malformed requests are a 400, foreign conversations a 403', async () => {
  const { alice, id, messages } = await conversationOf(1);
  const check = async (query, status) => {
    const response = await wire.server.rest(mint(alice), 'GET', `/conversations/${id}/messages${query}`);
    assert.equal(response.status, status, query);
    if (status !== 200) assert.equal(response.body.code, 'bad_request');
  };
  for (const query of ['?cursor=1', '?cursor=garbage', '?cursor=c232ab00-9414-41ec-b3c8-9f6bdeced846', '?after=xyz', '?cursor=%00']) {
    await check(query, 400);
  }
  for (const query of ['?limit=0', '?limit=101', '?limit=-1', '?limit=ten', '?limit=1e1', '?limit=99999999999999999999']) {
    await check(query, 400);
  }
  await check(`?cursor=${messages[0].id}&after=${messages[0].id}`, 400);
  for (const query of ['?unknown=1', '?cursor=', '?limit=', '?after=']) await check(query, 200);
  const [eve] = users(1);
  const response = await wire.server.rest(mint(eve), 'GET', `/conversations/${id}/messages`);
  assert.equal(response.status, 403);
  for (const bad of ['0', '-1', '01', 'x', '9007199254740992', '1%20']) {
    const answer = await wire.server.rest(mint(alice), 'GET', `/conversations/${bad}/messages`);
    assert.equal(answer.status, 400, bad);
  }
});

it('one message is found by its id, in its own conversation only', async () => {
  const { alice, bob, id, messages } = await conversationOf(2);
  const [carol] = users(1);
  const other = await wire.server.conversation(alice, carol);
  const get = (conversation, message) => wire.server.rest(mint(alice), 'GET', `/conversations/${conversation}/messages/${message}`);
  assert.deepEqual((await get(id, messages[0].id)).body, messages[0]);
  assert.equal((await get(other, messages[0].id)).status, 404);
  assert.equal((await get(id, 'c232ab00-9414-11ec-b3c8-9f6bdeced846')).status, 404);
  assert.equal((await get(id, 'nonsense')).status, 400);
  assert.ok(bob);
});

it('no gap and no duplicate while others write', async () => {
  const { alice, bob, id } = await conversationOf(30);
  const seen = new Map();
  let writing = true;
  const writer = (async () => {
    for (let index = 0; index < 60; index += 1) await wire.server.post(alice, id, `later ${index}`);
    writing = false;
  })();
  const read = (query) => wire.server.expect(200, mint(bob), 'GET', `/conversations/${id}/messages?limit=7${query}`);
  let page = await read('');
  const newest = page.messages[0].id;
  for (;;) {
    for (const message of page.messages) {
      assert.ok(!seen.has(message.id), 'a message came twice');
      seen.set(message.id, message);
    }
    if (!page.hasMore) break;
    page = await read(`&cursor=${page.nextCursor}`);
  }
  for (let after = newest; ; after = page.nextCursor) {
    const done = !writing;
    page = await read(`&after=${after}`);
    for (const message of page.messages) {
      assert.ok(!seen.has(message.id), 'a message came twice');
      seen.set(message.id, message);
    }
    if (done && !page.hasMore) break;
  }
  await writer;
  assert.equal(seen.size, 90);
  for (const message of seen.values()) assert.ok(!message.prev || seen.has(message.prev), 'a gap');
});

it('the history is the same under /api', async () => {
  const { bob, id, page } = await conversationOf(3);
  assert.deepEqual(await wire.server.expect(200, mint(bob), 'GET', `/api/conversations/${id}/messages`), await page());
});
