// node client.js FIRST NAME COUNT MOST PATH…: see tests/clients/senders.py
const fs = require('fs'), { pipeline } = require('stream/promises'), { Readable } = require('stream');
const [first, name, count, most, ...paths] = process.argv.slice(2);
const SIZE = 4000;

function pieces(data) {
  const parts = [];
  for (let at = 0; at < data.length; at += SIZE) parts.push(data.subarray(at, at + SIZE));
  return parts;
}

const ways = {
  async promises(path, data) {
    const file = await fs.promises.open(path, 'w');
    try {
      for (let at = 0; at < data.length;) at += (await file.write(data.subarray(at, at + SIZE))).bytesWritten;
    } finally { await file.close(); }
  },
  async stream(path, data) { await pipeline(Readable.from(pieces(data)), fs.createWriteStream(path)); },
  async writeFile(path, data) { await fs.promises.writeFile(path, data); },
  async append(path, data) {
    const file = await fs.promises.open(path, 'a');
    try { for (const piece of pieces(data)) await file.appendFile(piece); } finally { await file.close(); }
  },
  callbacks(path, data) {
    return new Promise((resolve, reject) => fs.open(path, 'w', (error, fd) => {
      if (error) return reject(error);
      const done = (error) => fs.close(fd, (other) => (error || other ? reject(error || other) : resolve()));
      const next = (at) => (at === data.length ? done(null)
        : fs.write(fd, data.subarray(at, at + SIZE), (error, count) => (error ? done(error) : next(at + count))));
      next(0);
    }));
  },
};

async function sender(path, number) {
  const way = Object.values(ways)[(+first + number) % Object.keys(ways).length];
  for (let n = 0; n < +count; n++) {
    const who = `${name}-${number}-${n}`, content = `${who} `.repeat(1 + (n * 37) % +most);
    const data = Buffer.from(JSON.stringify({ files: { 'a.txt': { content } }, summary: { colour: 'red', who } }));
    let said = 'ok';
    try { await way(path, data); } catch (error) { said = error.code; }
    console.log(who, said);
  }
}
Promise.all(paths.map(sender));
