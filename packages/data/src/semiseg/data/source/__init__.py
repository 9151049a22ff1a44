"""Publishers' files: what an adapter is, where its root is found, trees and archives read alike."""
