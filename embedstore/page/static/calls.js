// Messages to the host and back -> promises, and the buffers that come with them -> typed arrays.
// Who answers (the page's server, a notebook's kernel, a report's own data) is left to the host behind `model`.

export class CallError extends Error {
  constructor(type, message) {
    super(message);
    this.type = type;
  }
}

// call(name, args, buffers, {signal}) -> Promise of the result with its `buffers`. A host that knows `cancel` is told
// when nobody waits for an answer any more.
export function connect(model) {
  const waiting = new Map();
  let last = 0;

  model.on("msg:custom", (message, buffers) => {
    const asked = waiting.get(message && message.id);
    if (!asked) return;
    waiting.delete(message.id);
    if (message.ok) asked.resolve({...message.result, buffers: buffers || []});
    else asked.reject(new CallError(message.error.type, message.error.message));
  });

  return function call(name, args = {}, buffers = [], options = {}) {
    const id = ++last;
    return new Promise((resolve, reject) => {
      const gone = options.signal;
      if (gone && gone.aborted) return reject(new CallError("Cancelled", "nobody waits for this any more"));
      waiting.set(id, {resolve, reject});
      if (gone) {
        gone.addEventListener("abort", () => {
          if (!waiting.delete(id)) return;
          if (model.cancel) model.cancel(id);
          reject(new CallError("Cancelled", "nobody waits for this any more"));
        });
      }
      model.send({id, call: name, args}, undefined, buffers);
    });
  };
}

// A buffer of the host (ArrayBuffer or a view of one, at any offset) as a typed array of its own: it is copied where
// its start is not a multiple of the type's size.
export function typed(Type, buffer) {
  const bytes = buffer instanceof ArrayBuffer ? new Uint8Array(buffer) : new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  const size = Type.BYTES_PER_ELEMENT;
  const count = Math.floor(bytes.byteLength / size);
  if (bytes.byteOffset % size === 0) return new Type(bytes.buffer, bytes.byteOffset, count);
  return new Type(bytes.slice().buffer, 0, count);
}
